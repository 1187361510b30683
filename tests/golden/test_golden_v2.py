"""A frozen store with a pack of version 2: an entry of every codec, for every kind of element, is read as it was."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from blake3 import blake3

from shardfs.codecs import kernels, registry
from shardfs.codecs.kernels import Kernels
from shardfs.codecs.kernels_numpy import NumpyKernels
from shardfs.formats.ids import Kind, chunk_id, content_id
from shardfs.formats.pack import TRAILER_SIZE, Entry, parse_trailer
from shardfs.history import paths
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.store import packs
from shardfs.store.layout import Layout
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests.golden import make_v2

FROZEN = Path(__file__).with_name("v2")
CONTENTS = make_v2.contents()


def _pack() -> tuple[Path, tuple[Entry, ...]]:
    [pack_id] = packs.list_packs(Layout(FROZEN))
    path = Layout(FROZEN).pack(pack_id)
    assert packs.hash_file(path) == pack_id
    return path, packs.read_table(path).entries


def test_nobody_touched_the_frozen_files() -> None:
    hasher = blake3()
    for path in sorted(path for path in FROZEN.rglob("*") if path.is_file()):
        data = path.read_bytes()
        hasher.update(f"{path.relative_to(FROZEN).as_posix()} {len(data)}\n".encode() + data)
    assert hasher.hexdigest() == "ba97b252a4df7aefe558a0ea647a5eb7e763f1d37c07e3adbf3dec7810e1b88f"


def test_the_pack_names_the_bases_of_its_entries() -> None:
    path, entries = _pack()
    data = path.read_bytes()
    assert parse_trailer(data[-TRAILER_SIZE:], len(data)).version == 2
    assert {entry.codec for entry in entries} == registry._CODECS.keys()
    expected = make_v2.payloads()
    names: dict[bytes, str] = {chunk_id(content): name for name, content in CONTENTS.items()}
    found = {names[e.id]: (e.codec, e.bases, e.raw_size) for e in entries if e.kind is Kind.CHUNK}
    assert found == {n: (e.codec, e.bases, len(CONTENTS[n])) for n, e in expected.items()}
    assert {len(bases) for _, bases, _ in found.values()} == {0, 1, 2}


@pytest.mark.parametrize("loops", [kernels.active, NumpyKernels()], ids=["active", "numpy"])
def test_every_payload_decodes_to_what_it_was(loops: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "active", loops)
    path, entries = _pack()
    by_id: dict[bytes, bytes] = {chunk_id(content): content for content in CONTENTS.values()}
    for entry in entries:
        payload = packs.read_payload(path, entry)
        bases = [by_id[base] for base in entry.bases]
        plaintext = registry.decode(entry.codec, payload, entry.raw_size, bases)
        assert content_id(entry.kind, plaintext) == entry.id


def test_the_store_holds_all_files(tmp_path: Path) -> None:
    shutil.copytree(FROZEN, tmp_path / "s")
    store = Store(tmp_path / "s")
    reader = Reader(store)
    objects = Objects(reader)
    tip = store.refs.get("refs/heads/main")
    assert tip is not None
    assert objects.commit(tip).message == "all codecs"
    found = {
        paths.show(path): FileReader(entry, objects, reader).read_at(0, entry.size)
        for path, entry in paths.files(objects, objects.commit(tip).tree)
    }
    assert found == CONTENTS
    store.close()
