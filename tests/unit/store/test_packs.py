"""Pack files: written, read, limited."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3

from shardfs.codecs.registry import Encoded
from shardfs.errors import MalformedError, PackCorruptedError, StoreError
from shardfs.formats import pack as pack_format
from shardfs.formats.ids import Kind, PackId, chunk_id
from shardfs.formats.manifest import MAX_CHUNK_SIZE
from shardfs.formats.pack import Entry
from shardfs.store import packs
from shardfs.store.layout import Layout
from shardfs.store.packs import FinishedPack, PackWriter
from shardfs.store.store import Store
from tests.stores import noise


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path)


def _write(layout: Layout, *items: tuple[Kind, bytes]) -> FinishedPack:
    writer = PackWriter(layout)
    for kind, data in items:
        writer.add(kind, chunk_id(data), 0, data, len(data), ())
    return writer.finish()


def test_objects_follow_the_chunks(layout: Layout) -> None:
    pack = _write(
        layout, (Kind.TREE, b"tree"), (Kind.CHUNK, b"chunk one"), (Kind.COMMIT, b"commit"), (Kind.CHUNK, b"two")
    )
    assert [e.kind for e in pack.entries] == [Kind.CHUNK, Kind.CHUNK, Kind.TREE, Kind.COMMIT]
    path = layout.pack(pack.id)
    assert pack.id == blake3(path.read_bytes()).digest() == packs.hash_file(path)
    assert packs.read_table(path) == pack
    assert [packs.read_payload(path, e) for e in pack.entries] == [b"chunk one", b"two", b"tree", b"commit"]
    assert packs.list_packs(layout) == {pack.id: path.stat().st_size}
    assert list(layout.tmp.iterdir()) == []


def test_the_same_payloads_make_the_same_pack(layout: Layout) -> None:
    items = [(Kind.CHUNK, b"one"), (Kind.TREE, b"two")]
    assert _write(layout, *items) == _write(layout, *items)
    assert len(packs.list_packs(layout)) == 1


def test_an_aborted_pack_leaves_nothing(layout: Layout) -> None:
    writer = PackWriter(layout)
    writer.add(Kind.CHUNK, bytes(32), 0, b"x", 1, ())
    writer.abort()
    assert list(layout.tmp.iterdir()) == []
    assert packs.list_packs(layout) == {}


@pytest.mark.parametrize(
    ("kind", "payload", "raw_size"),
    [(Kind.CHUNK, b"xx", 1), (Kind.CHUNK, b"x", MAX_CHUNK_SIZE + 1), (Kind.TREE, b"x", (64 << 20) + 1)],
)
def test_what_no_reader_would_take_is_not_written(layout: Layout, kind: Kind, payload: bytes, raw_size: int) -> None:
    writer = PackWriter(layout)
    with pytest.raises(MalformedError, match="out of limits"):
        writer.add(kind, bytes(32), 0, payload, raw_size, ())
    writer.add(Kind.CHUNK, bytes(32), 0, b"y", 1, ())
    assert len(packs.read_table(layout.pack(writer.finish().id)).entries) == 1


def test_many_tiny_payloads_close_a_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pack of more than 2**20 entries could be written, and never be read."""
    assert packs.TARGET_ENTRIES < pack_format.MAX_ENTRIES
    monkeypatch.setattr(packs, "TARGET_ENTRIES", 10)
    store = Store.create(tmp_path / "s")
    with store.batch() as batch:
        for i in range(25):
            batch.put_encoded(Kind.CHUNK, chunk_id(b"%d" % i), Encoded(0, b"%d" % i), len(b"%d" % i))
    assert sorted(len(store.index.entries(p)) for p in store.index.packs()) == [5, 10, 10]
    store.close()


@pytest.mark.parametrize("change", [{"offset": -1}, {"offset": 1 << 70}, {"offset": "x"}, {"stored_size": 1 << 60}])
@pytest.mark.parametrize("size", [{}, {"stored_size": -1}, {"stored_size": "x"}, {"stored_size": None}])
def test_impossible_rows_of_an_index_read_nothing(layout: Layout, change: dict[str, Any], size: dict[str, Any]) -> None:
    pack = _write(layout, (Kind.CHUNK, b"one"))
    with pytest.raises(PackCorruptedError):
        packs.read_payload(layout.pack(pack.id), pack.entries[0]._replace(**{**change, **size}))


def test_a_payload_past_the_end(layout: Layout) -> None:
    pack = _write(layout, (Kind.CHUNK, b"one"))
    entry = Entry(bytes(32), Kind.CHUNK, 0, pack.size - 1, 2, 2)
    with pytest.raises(PackCorruptedError, match="ends early"):
        packs.read_payload(layout.pack(pack.id), entry)
    with pytest.raises(PackCorruptedError, match="cannot be read"):
        packs.read_payload(layout.pack(PackId(bytes(32))), entry)


def test_truncated_packs_have_no_table(layout: Layout) -> None:
    pack = _write(layout, (Kind.CHUNK, noise(1, 500)))
    path = layout.pack(pack.id)
    data = path.read_bytes()
    for size in [0, 1, 15, 16, 63, 64, 79, 80, 81, len(data) - 1]:
        path.write_bytes(data[:size])
        with pytest.raises(PackCorruptedError):
            packs.read_table(path)
    path.write_bytes(data + b"x")
    with pytest.raises(PackCorruptedError):
        packs.read_table(path)
    path.unlink()
    with pytest.raises(PackCorruptedError):
        packs.hash_file(path)


def test_only_well_named_files_are_packs(layout: Layout) -> None:
    pack = _write(layout, (Kind.CHUNK, b"one"))
    folder = layout.pack(pack.id).parent
    for name in ("x.pack", f"{'AB' * 32}.pack", f"{'ab' * 31}.pack", f"{pack.id.hex()}.tmp", f"{'00' * 32}.pack.pack"):
        (folder / name).write_bytes(b"x")
    (layout.packs / "zz").mkdir()
    (layout.packs / "zz" / f"{pack.id.hex()}.pack").write_bytes(b"x")
    (layout.packs / "file").write_bytes(b"x")
    assert list(packs.list_packs(layout)) == [pack.id]
    assert packs.list_packs(Layout(Path(os.devnull))) == {}


def test_a_store_that_vanishes_under_a_writer(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "s")
    layout.root.mkdir()
    writer = PackWriter(layout)
    for path in (*layout.tmp.iterdir(), layout.tmp, layout.root):
        path.rmdir() if path.is_dir() else path.unlink()
    with pytest.raises(StoreError, match="gone"):
        writer.finish()
    with pytest.raises(StoreError, match="gone"):
        PackWriter(layout)
