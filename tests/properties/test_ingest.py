"""Files of any shape are stored so that their chunks, joined, are the file; equal files are stored once."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardfs.codecs import registry
from shardfs.formats.ids import Kind, chunk_id
from shardfs.formats.manifest import Manifest
from shardfs.staging import ingest as ingest_module
from shardfs.staging.ingest import Ingest, Ingested
from shardfs.store.store import Store
from shardfs.tensors import Layout, Stretch, detector

KIB = 1 << 10
PIECES = st.lists(
    st.tuples(st.sampled_from(["noise", "zeros", "hole", "text"]), st.integers(1, 6000 * KIB)), max_size=6
)


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with tempfile.TemporaryDirectory() as folder:
        made = Store.create(Path(folder) / "store")
        yield made
        made.close()


def write(path: Path, pieces: list[tuple[str, int]], seed: int) -> None:
    rng = random.Random(seed)
    with path.open("wb") as file:
        for kind, size in pieces:
            if kind == "hole":
                file.seek(size, os.SEEK_CUR)
                continue
            made = {"noise": rng.randbytes(size), "zeros": bytes(size), "text": (b"ten bytes " * size)[:size]}
            file.write(made[kind])
        file.truncate(file.tell())


def put(store: Store, path: Path) -> Ingested:
    fd = os.open(path, os.O_RDONLY)
    try:
        with store.batch() as batch, Ingest(batch) as ingest:
            return ingest.file(fd, b"file")
    finally:
        os.close(fd)


def plaintext(store: Store, id_: bytes) -> bytes:
    location = store.find(id_)[0]
    encoded = store.read(location)
    return registry.decode(encoded.codec, encoded.payload, location.entry.raw_size)


def joined(store: Store, content: Ingested) -> bytes:
    if content.manifest is None:
        return plaintext(store, content.chunk) if content.chunk else b""
    manifest = Manifest.from_bytes(plaintext(store, content.manifest))
    parts = [plaintext(store, chunk.id) for chunk in manifest.chunks]
    assert [chunk_id(part) for part in parts] == [chunk.id for chunk in manifest.chunks]
    return b"".join(parts)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=PIECES,
    seed=st.integers(0, 3),
    cuts=st.lists(st.integers(0, 20_000 * KIB), max_size=6),
    buffer=st.sampled_from([4 << 20, 5 << 20, 16 << 20]),
)
def test_files_come_back(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    pieces: list[tuple[str, int]],
    seed: int,
    cuts: list[int],
    buffer: int,
) -> None:
    monkeypatch.setattr(ingest_module, "BUFFER_SIZE", buffer)
    points = sorted(cuts)
    pairs = zip(points[::2], points[1::2], strict=False)
    stretches = tuple(Stretch("t", None, (end - start,), start, end) for start, end in pairs)
    layout = Layout("test", None, None, stretches) if stretches else None
    monkeypatch.setattr(detector, "detect", lambda *_: layout)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        write(path, pieces, seed)
        data = path.read_bytes()
        content = put(store, path)
        assert content.size == len(data)
        assert joined(store, content) == data
        entries = [entry for pack in store.index.packs() for entry in store.index.entries(pack)]
        assert all(entry.raw_size <= 4 << 20 for entry in entries if entry.kind is Kind.CHUNK)
        assert put(store, path) == content
        assert sum(len(store.index.entries(pack)) for pack in store.index.packs()) == len(entries)
