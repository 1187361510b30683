"""Damage of every file of a store, and files made by an enemy: the right bytes or a clear error, never wrong bytes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from blake3 import blake3

from shardfs import config
from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    ChunkCorruptedError,
    FormatError,
    IntegrityError,
    ObjectCorruptedError,
    PackCorruptedError,
    ShardfsError,
    UnsupportedVersionError,
)
from shardfs.formats import canonical
from shardfs.formats import pack as pack_format
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, PackId, TreeId, chunk_id
from shardfs.formats.pack import HEADER, TRAILER_SIZE, Entry
from shardfs.formats.ref import packs_from_bytes, refs_from_bytes
from shardfs.history import paths
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.history.walk import ancestors
from shardfs.maintenance import doctor
from shardfs.maintenance.verify import verify
from shardfs.store import packs
from shardfs.store.cache import Cache
from shardfs.store.store import Store
from shardfs.transfer import reader as reader_module
from shardfs.transfer.reader import Reader
from tests import stores
from tests.stores import FolderSource, commit, flip, noise

TEXT = b"the same line again\n" * 20
FILES = {"a/text": TEXT, "noise": noise(1, 150), "long": noise(2, 4200)}
Contents = dict[str, bytes]


@pytest.fixture(autouse=True)
def _reconcile_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests damage one store many times a minute."""
    monkeypatch.setattr(reader_module, "RECONCILE_INTERVAL_S", 0.0)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two small commits in two packs."""
    store = Store.create(tmp_path / "store")
    commit(store, FILES, message="first")
    commit(store, {**FILES, "more": b"more"}, message="second")
    yield store
    store.close()


def _everything(store: Store, reader: Reader | None = None) -> Contents:
    """All files of all versions of the main branch."""
    reader = Reader(store, budget_bytes=0) if reader is None else reader
    objects = Objects(reader)
    tip = store.refs.get("refs/heads/main")
    assert tip is not None
    found: Contents = {}
    for id_, version in ancestors(objects, [tip]):
        for path, entry in paths.files(objects, version.tree):
            found[f"{id_.hex()}:{paths.show(path)}"] = b"".join(FileReader(entry, objects, reader).blocks())
    return found


def _right_or_error(read: Callable[[], Contents], right: Contents) -> bool:
    """Whether reading gave the right bytes; False for an error of ours, anything else fails the test."""
    try:
        found = read()
    except ShardfsError:
        return False
    assert found == right
    return True


def _is_sound(store: Store) -> bool:
    reader = Reader(store, budget_bytes=0)
    return verify(store, Objects(reader), reader).ok


# Packs


def _regions(path: Path) -> dict[str, range]:
    size = path.stat().st_size
    table = packs.read_table(path)
    end = max(e.offset + e.stored_size for e in table.entries)
    return {
        "header": range(len(HEADER)),
        "payload": range(len(HEADER), end, 13),
        "table": range(end, size - TRAILER_SIZE, 3),
        "trailer": range(size - TRAILER_SIZE, size),
    }


@pytest.mark.parametrize("region", ["header", "payload", "table", "trailer"])
def test_flipped_bits_in_a_pack(store: Store, region: str) -> None:
    right = _everything(store)
    path = max(store.layout.packs.rglob("*.pack"), key=lambda p: p.stat().st_size)
    healed = 0
    for offset in _regions(path)[region]:
        flip(path, offset, offset % 8)
        healed += _right_or_error(lambda: _everything(store), right)
        assert not _is_sound(store), f"a flipped bit at {offset} goes unnoticed"
        flip(path, offset, offset % 8)
    assert _is_sound(store)
    if region != "payload":
        assert healed, "the index still knows where payloads are"


@pytest.mark.parametrize("region", ["header", "payload", "table", "trailer"])
def test_flipped_bits_are_healed_from_a_remote(store: Store, region: str, tmp_path: Path) -> None:
    right = _everything(store)
    shutil.copytree(store.layout.root, tmp_path / "other")
    other = Store(tmp_path / "other")
    stores.know_remote_packs(store, other)
    source = FolderSource(other)
    path = max(store.layout.packs.rglob("*.pack"), key=lambda p: p.stat().st_size)
    for offset in list(_regions(path)[region])[::5]:
        flip(path, offset, offset % 8)
        assert _everything(store, Reader(store, budget_bytes=0, remote=lambda _: source)) == right
        flip(path, offset, offset % 8)
    other.close()


@pytest.mark.parametrize("rest", [None, 0, 1, 16, 100, 0.5, -1])
def test_truncated_missing_and_empty_packs(store: Store, rest: float | None) -> None:
    right = _everything(store)
    for path in sorted(store.layout.packs.rglob("*.pack")):
        data = path.read_bytes()
        if rest is None:
            path.unlink()
        else:
            path.write_bytes(data[: int(len(data) * rest) if isinstance(rest, float) else rest])
        assert not _right_or_error(lambda: _everything(store), right) or rest == -1
        assert not _is_sound(store)
        fresh = Store(store.layout.root)
        _right_or_error(lambda fresh=fresh: _everything(fresh), right)  # type: ignore[misc]
        fresh.close()
        path.write_bytes(data)
    store.reconcile()
    assert _everything(store) == right


# Index


def _damaged_copy(store: Store, root: Path, change: Callable[[Path], None]) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(store.layout.root, root)
    change(root / "index.sqlite")
    return root


def _open_and_read(root: Path) -> Contents:
    store = Store(root)
    try:
        return _everything(store)
    finally:
        store.close()


def _fix(root: Path) -> None:
    store = Store(root)
    try:
        doctor.fix(store, config.load(None))
    finally:
        store.close()


def test_flipped_bits_in_the_index(store: Store, tmp_path: Path) -> None:
    right = _everything(store)
    root = store.layout.root
    store.close()
    size = (root / "index.sqlite").stat().st_size
    for offset in [*range(0, 100, 9), *range(100, size, size // 60)]:
        copy = _damaged_copy(store, tmp_path / "copy", lambda p, at=offset: flip(p, at, at % 8))  # type: ignore[misc]
        _right_or_error(lambda copy=copy: _open_and_read(copy), right)  # type: ignore[misc]
        _fix(copy)
        assert _open_and_read(copy) == right, f"offset {offset}"


@pytest.mark.parametrize("rest", [None, 0, 1, 100, 4096, 0.5])
def test_truncated_missing_and_empty_indexes(store: Store, rest: float | None, tmp_path: Path) -> None:
    right = _everything(store)
    store.close()

    def damage(path: Path) -> None:
        data = path.read_bytes()
        path.unlink()
        if rest is not None:
            path.write_bytes(data[: int(len(data) * rest) if isinstance(rest, float) else rest])

    copy = _damaged_copy(store, tmp_path / "copy", damage)
    _right_or_error(lambda: _open_and_read(copy), right)
    _fix(copy)
    assert _open_and_read(copy) == right


# Names


@pytest.mark.parametrize("name", ["refs/heads/main", "HEAD", "info/refs", "info/packs"])
@pytest.mark.parametrize("rest", [None, 0, 20])
def test_truncated_missing_and_empty_names(store: Store, name: str, rest: int | None) -> None:
    path = store.layout.root / name
    data = path.read_bytes()
    path.unlink()
    if rest is not None:
        path.write_bytes(data[:rest])
    _check_name(store, path, data)


@pytest.mark.parametrize("name", ["refs/heads/main", "HEAD", "info/refs", "info/packs"])
def test_flipped_bits_in_names(store: Store, name: str) -> None:
    path = store.layout.root / name
    data = path.read_bytes()
    for offset in range(0, len(data), 1 + len(data) // 70):
        flip(path, offset, offset % 7)
        _check_name(store, path, data)
        path.write_bytes(data)


def _check_name(store: Store, path: Path, data: bytes) -> None:
    """A damaged name is an error or nobody, never another version; the doctor puts it right."""
    tip = store.refs.log("refs/heads/main")[0].new
    objects = Objects(Reader(store, budget_bytes=0))
    for read in (store.refs.head_commit, lambda: store.refs.get("refs/heads/main")):
        try:
            found = read()
            assert found in (None, tip) or objects.commit(found) is None
        except (IntegrityError, LookupError):
            pass
    doctor.fix(store, config.load(None))
    if path.name == "HEAD":
        assert store.refs.head().branch is not None
    elif path.name == "main":
        assert path.read_bytes() == data
    else:
        assert json.loads(path.read_bytes())[path.name] == json.loads(data)[path.name]


# Cache


@pytest.mark.parametrize("pattern", ["*.seg*", "cache.sqlite"])
def test_flipped_bits_in_the_cache(store: Store, tmp_path: Path, pattern: str) -> None:
    right = _everything(store)
    lazy = Store.create(tmp_path / "lazy")
    stores.know_remote_packs(lazy, store)
    tip = store.refs.get("refs/heads/main")
    assert tip is not None
    lazy.refs.move("refs/heads/main", None, tip)
    source = FolderSource(store)
    folder = tmp_path / "cache"

    def read() -> Contents:
        cache = Cache.open(folder, limit_bytes=64 << 20, free_floor_bytes=0)
        try:
            return _everything(lazy, Reader(lazy, budget_bytes=0, cache=cache, remote=lambda _: source))
        finally:
            cache.close()

    assert read() == right
    files = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size and p.name != "lock"]
    wanted = [p for p in files if (p.name == "cache.sqlite") == (pattern == "cache.sqlite") and "-" not in p.name]
    assert wanted
    for number in range(30):
        for path in wanted:
            if path.exists() and (size := path.stat().st_size):
                flip(path, number * 131 % size, number % 8)
        assert read() == right
    lazy.close()


# Files made by an enemy


def _put_raw(store: Store, kind: Kind, plaintext: bytes) -> bytes:
    with store.batch() as batch:
        return batch.put(kind, plaintext)


def _tree(*entries: dict[str, Any], **more: Any) -> bytes:
    return canonical.dumps({"type": "tree", "version": 1, "entries": list(entries), **more})


def _file(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": "file", "size": 0, **more}


HOSTILE_TREES = {
    "parent": _tree(_file("..")),
    "path": _tree(_file("../../etc/passwd")),
    "absolute": _tree(_file("/etc/passwd")),
    "self": _tree(_file(".")),
    "empty name": _tree(_file("")),
    "nul": _tree(_file("a\0b")),
    "twice": _tree(_file("a"), _file("a")),
    "unsorted": _tree(_file("b"), _file("a")),
    "long": _tree(_file("a" * 256)),
    "two names": _tree({**_file("a"), "name64": "YQ=="}),
    "not base64": _tree({"name64": "%%", "kind": "file", "size": 0}),
    "base64 for utf-8": _tree({"name64": "YQ==", "kind": "file", "size": 0}),
    "negative": _tree(_file("a", size=-1)),
    "size without content": _tree(_file("a", size=1 << 52)),
    "chunk too large": _tree(_file("a", size=1 << 40, chunk="0" * 64)),
    "bad id": _tree(_file("a", size=1, chunk="../../../../etc/passwd")),
    "upper case id": _tree(_file("a", size=1, chunk="A" * 64)),
    "device": _tree({"name": "a", "kind": "device"}),
    "empty target": _tree({"name": "a", "kind": "link", "target": ""}),
    "nul target": _tree({"name": "a", "kind": "link", "target": "a\0"}),
    "unknown member": _tree(_file("a", setuid=True)),
    "executable": _tree(_file("a", executable="yes")),
    "extra": _tree(extra=1),
    "other type": canonical.dumps({"type": "commit", "version": 1, "entries": []}),
    "not canonical": b'{"type": "tree", "version": 1, "entries": []}',
    "not json": b"\x80",
    "deep": b"[" * 100_000,
    "number": b"1e999",
}


def test_a_newer_tree_is_told_from_a_damaged_one(store: Store) -> None:
    newer = canonical.dumps({"type": "tree", "version": 2, "entries": []})
    with pytest.raises(UnsupportedVersionError, match="version 2"):
        Objects(Reader(store)).tree(TreeId(_put_raw(store, Kind.TREE, newer)))


@pytest.mark.parametrize("name", HOSTILE_TREES)
def test_hostile_trees(store: Store, name: str) -> None:
    id_ = TreeId(_put_raw(store, Kind.TREE, HOSTILE_TREES[name]))
    with pytest.raises(ObjectCorruptedError, match="breaks its format"):
        Objects(Reader(store)).tree(id_)


def _manifest(size: Any, *chunks: Any, **more: Any) -> bytes:
    return canonical.dumps({"type": "manifest", "version": 1, "size": size, "chunks": list(chunks), **more})


ID = "ab" * 32
HOSTILE_MANIFESTS = {
    "sum": _manifest(5, [ID, 4]),
    "empty chunk": _manifest(0, [ID, 0]),
    "negative chunk": _manifest(0, [ID, -1], [ID, 1]),
    "huge chunk": _manifest(1 << 40, [ID, 1 << 40]),
    "float": _manifest(1.5, [ID, 1.5]),
    "bool": _manifest(True, [ID, True]),
    "string": _manifest("1", [ID, "1"]),
    "path": _manifest(1, ["../" * 21 + "x", 1]),
    "triple": _manifest(1, [ID, 1, 1]),
    "no list": canonical.dumps({"type": "manifest", "version": 1, "size": 0, "chunks": {}}),
    "unknown member": _manifest(1, [ID, 1], file_path="/etc/passwd"),
    "media": _manifest(1, [ID, 1], media={"format": "pickle", "run": "rm"}),
}


@pytest.mark.parametrize("name", HOSTILE_MANIFESTS)
def test_hostile_manifests(store: Store, name: str) -> None:
    id_ = ManifestId(_put_raw(store, Kind.MANIFEST, HOSTILE_MANIFESTS[name]))
    with pytest.raises(ObjectCorruptedError, match="breaks its format"):
        Objects(Reader(store)).manifest(id_)


def test_hostile_commits(store: Store) -> None:
    good = {
        "type": "commit",
        "version": 1,
        "tree": ID,
        "parents": [],
        "author": "a",
        "time_us": 0,
        "message": "",
        "meta": {},
        "auto": {},
    }
    changes: list[dict[str, Any]] = [
        {"tree": "../x"},
        {"parents": [ID] * 65},
        {"parents": "x"},
        {"time_us": "now"},
        {"author": 5},
        {"meta": []},
        {"extra": 1},
        {"attachments": 5},
    ]
    Objects(Reader(store)).commit(CommitId(_put_raw(store, Kind.COMMIT, canonical.dumps(good))))
    for change in changes:
        id_ = CommitId(_put_raw(store, Kind.COMMIT, canonical.dumps({**good, **change})))
        with pytest.raises(ObjectCorruptedError, match="breaks its format"):
            Objects(Reader(store)).commit(id_)


BOMB = bytes(1 << 28)  # 256 MiB of zeros are a frame of 8 KiB


@pytest.mark.parametrize("declared", ["all", "nothing", "little"])
def test_a_compression_bomb_is_refused(store: Store, declared: str) -> None:
    options = zstandard.ZstdCompressor(level=1, write_content_size=declared != "nothing")
    frame = options.compress(BOMB)
    if declared == "little":
        frame = zstandard.ZstdCompressor().compress(bytes(1 << 14)) + frame
    size = max(1 << 14, len(frame))
    with store.batch() as batch:
        batch.put_encoded(Kind.CHUNK, chunk_id(b"bomb"), Encoded(1, frame), size)
    with pytest.raises(ChunkCorruptedError):
        Reader(store).chunk(ChunkId(chunk_id(b"bomb")), size)
    assert not _is_sound(store)


def _write_pack(store: Store, entries: list[Entry], payload: bytes) -> Path:
    """A pack with a table that an enemy wrote, under its right id."""
    data = HEADER + payload
    data += pack_format.tail_to_bytes(entries, len(data))
    path = store.layout.pack(PackId(blake3(data).digest()))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "entry",
    [
        Entry(bytes(32), Kind.CHUNK, 1, 16, 10, (16 << 20) + 1),
        Entry(bytes(32), Kind.CHUNK, 1, 16, 10, (1 << 32) - 1),
        Entry(bytes(32), Kind.TREE, 1, 16, 10, (64 << 20) + 1),
        Entry(bytes(32), Kind.CHUNK, 0, 16, 11, 10),
        Entry(bytes(32), Kind.CHUNK, 0, 17, 10, 10),
        Entry(bytes(32), Kind.CHUNK, 0, 1 << 60, 10, 10),
        Entry(bytes(32), Kind.CHUNK, 0, 16, 9, 10),
        Entry(bytes(32), 77, 0, 16, 10, 10),  # type: ignore[arg-type]
    ],
)
def test_huge_and_wrong_sizes_in_a_table(store: Store, entry: Entry) -> None:
    path = _write_pack(store, [entry], b"0123456789")
    with pytest.raises(PackCorruptedError, match="damaged"):
        packs.read_table(path)
    right = _everything(store)
    store.reconcile()
    assert not _is_sound(store)
    assert _everything(store) == right
    assert doctor.diagnose(store, config.load(None))[0].level == "error"


def test_a_table_bomb_is_refused(store: Store) -> None:
    frame = zstandard.ZstdCompressor(level=1).compress(BOMB)
    head = HEADER
    trailer = pack_format._TRAILER.pack(len(head), len(frame), 1, blake3(frame).digest(), 1, 0, pack_format.END_MAGIC)
    path = store.layout.pack(PackId(blake3(head + frame + trailer).digest()))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(head + frame + trailer)
    with pytest.raises(PackCorruptedError):
        packs.read_table(path)


def test_an_unknown_codec_is_an_error(store: Store) -> None:
    id_ = chunk_id(b"0123456789")
    _write_pack(store, [Entry(id_, Kind.CHUNK, 250, 16, 10, 10)], b"0123456789")
    store.reconcile()
    with pytest.raises(ChunkCorruptedError, match="newer"):
        Reader(store).chunk(id_, 10)


def test_an_entry_under_a_wrong_id_is_never_given_out(store: Store) -> None:
    id_ = chunk_id(b"what is asked for")
    _write_pack(store, [Entry(id_, Kind.CHUNK, 0, 16, 10, 10)], b"0123456789")
    store.reconcile()
    with pytest.raises(ChunkCorruptedError):
        Reader(store).chunk(id_, 10)


def test_listings_of_an_enemy(store: Store) -> None:
    for text in (
        '{"version": 1, "refs": {"refs/heads/../../x": "ID"}}',
        '{"version": 1, "refs": {"/etc/passwd": "ID"}}',
        '{"version": 1, "refs": {"refs/heads/a": 5}}',
        '{"version": 1, "refs": []}',
        '{"version": 2, "refs": {}}',
        "[" * 100_000,
        "",
    ):
        with pytest.raises(FormatError):
            refs_from_bytes(text.replace("ID", ID).encode())
    for text in (
        '{"version": 1, "packs": [{"id": "%s", "size": -1}]}',
        '{"version": 1, "packs": [{"id": "%s", "size": 1e30}]}',
        '{"version": 1, "packs": [{"id": "../x", "size": 1}]}',
        '{"version": 1, "packs": 5}',
    ):
        with pytest.raises(FormatError):
            packs_from_bytes(text.replace("ID", ID).encode())
