"""Files of the first version of every format, frozen: read, and where a format is canonical, written again."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from shardfs.codecs.registry import RAW, ZSTD
from shardfs.errors import FormatError
from shardfs.formats import pack as pack_format
from shardfs.formats import ref
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, Kind, chunk_id, content_id
from shardfs.formats.manifest import Manifest
from shardfs.formats.pack import TRAILER_SIZE, Entry
from shardfs.formats.ref import Head
from shardfs.formats.tree import Tree
from shardfs.history import paths
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.store import packs
from shardfs.store.layout import Layout
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests.golden import make

FROZEN = Path(__file__).with_name("v1")
PACK_PAGE = Path(__file__).parents[2] / "docs/design/format/pack.md"
IDS = {name: bytes.fromhex(text) for name, text in json.loads((FROZEN / "ids.json").read_text()).items()}
PARSED: dict[str, Callable[[bytes], Tree | Manifest | Commit]] = {
    "tree": Tree.from_bytes,
    "manifest": Manifest.from_bytes,
    "commit": Commit.from_bytes,
}
OBJECTS = sorted(path.name for path in (FROZEN / "objects").iterdir())


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_nobody_touched_the_frozen_files() -> None:
    hasher = blake3()
    for name, data in sorted(_files(FROZEN).items()):
        hasher.update(f"{name} {len(data)}\n".encode() + data)
    assert hasher.hexdigest() == "537617e0c697b968f98296d84b4b87da4427406c4d4379d3945f4b5131eb2bbc"


@pytest.mark.parametrize("name", OBJECTS)
def test_objects(name: str) -> None:
    data = (FROZEN / "objects" / name).read_bytes()
    kind, made = make.objects()[name]
    value = PARSED[name.split(".")[1]](data)
    assert value.id == content_id(kind, data) == IDS[name]
    assert value.to_bytes() == data == made


def test_the_values_in_the_objects() -> None:
    assert Commit.from_bytes((FROZEN / "objects/second.commit").read_bytes()) == make.second_commit()
    assert Tree.from_bytes((FROZEN / "objects/inner.tree").read_bytes()) == make.inner_tree()
    assert Manifest.from_bytes((FROZEN / "objects/model.manifest").read_bytes()) == make.manifest()


def _layout() -> Layout:
    return Layout(FROZEN / "store")


def test_the_pack() -> None:
    [(pack_id, size)] = packs.list_packs(_layout()).items()
    path = _layout().pack(pack_id)
    assert packs.hash_file(path) == pack_id
    assert ref.packs_from_bytes(_layout().info_packs.read_bytes()) == [ref.PackSize(pack_id, size)]
    entries = packs.read_table(path).entries
    assert {e.codec for e in entries} == {RAW.code, ZSTD.code}
    assert {e.id for e in entries} == set(IDS.values())
    for entry in entries:
        payload = packs.read_payload(path, entry)
        plaintext = (RAW if entry.codec == RAW.code else ZSTD).decode(payload, entry.raw_size)
        assert content_id(entry.kind, plaintext) == entry.id


def test_a_pack_written_now_holds_the_same(tmp_path: Path) -> None:
    """Its bytes may differ: another zstd compresses otherwise."""
    old = packs.read_table(next((FROZEN / "store/packs").rglob("*.pack"))).entries
    new = make.write_pack(Layout(tmp_path)).entries
    assert [(e.id, e.kind, e.raw_size, e.bases) for e in new] == [(e.id, e.kind, e.raw_size, e.bases) for e in old]


def test_the_store(tmp_path: Path) -> None:
    shutil.copytree(FROZEN / "store", tmp_path / "s")
    store = Store(tmp_path / "s")
    reader = Reader(store)
    objects = Objects(reader)
    tip = CommitId(IDS["second.commit"])
    assert store.refs.head() == Head("refs/heads/main")
    assert store.refs.list() == {"refs/heads/main": tip, "refs/tags/v1": IDS["first.commit"]}
    assert [line.message for line in store.refs.log("refs/heads/main")] == ["commit: epoch 1", "commit: initial"]
    assert objects.commit(tip).parents == (IDS["first.commit"],)
    found = {
        paths.show(path): FileReader(entry, objects, reader).read_at(0, entry.size)
        for path, entry in paths.files(objects, objects.commit(tip).tree)
    }
    assert found == {
        "README": make.TEXT,
        "weights/café": make.TEXT,
        "weights/empty": b"",
        "weights/model.safetensors": make.WEIGHTS + make.TEXT,
        "weights/not utf-8 \udcff": make.WEIGHTS,
        "weights/run.sh": make.TEXT,
    }
    store.close()


def test_names_and_listings_written_now_are_the_same(tmp_path: Path) -> None:
    make.write_store(Layout(tmp_path))
    fresh, frozen = _files(tmp_path), _files(FROZEN / "store")
    for name in ("config.toml", "HEAD", "info/refs", "logs/refs/heads/main~", "refs/heads/main", "refs/tags/v1"):
        # Listings have a check since; who reads the first ones passes over it.
        assert re.sub(rb',\n"check": "[0-9a-f]{16}"', b"", fresh[name]) == frozen[name], name


def test_the_example_in_the_specification(tmp_path: Path) -> None:
    page = PACK_PAGE.read_text()
    [block] = re.findall(r"```hex\n(.*?)```", page, re.DOTALL)
    rows = [re.match(r"[0-9a-f]{4}  ((?:[0-9a-f]{2} ?)+)", line) for line in block.splitlines()]
    data = b"".join(bytes.fromhex(row[1]) for row in rows if row)
    assert blake3(data).hexdigest() in page
    assert f"{len(data)} bytes" in page
    trailer = pack_format.parse_trailer(data[-TRAILER_SIZE:], len(data))
    pack_format.parse_header(data)
    table = data[trailer.table_offset : trailer.table_offset + trailer.table_size]
    [entry] = pack_format.parse_table(table, trailer)
    assert entry == Entry(chunk_id(b"hello\n"), Kind.CHUNK, RAW.code, 16, 6, 6)
    assert entry.id.hex() in page
    assert data[entry.offset : entry.offset + entry.stored_size] == b"hello\n"
    with pytest.raises(FormatError):
        pack_format.parse_table(table[:-1] + b"\0", trailer)
