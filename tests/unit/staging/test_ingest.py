from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shardfs.chunking import Cursor
from shardfs.codecs import registry
from shardfs.errors import FileChangedError, StoreError, UnsupportedFileError
from shardfs.formats.ids import Kind, content_id
from shardfs.formats.manifest import Manifest, Media
from shardfs.formats.tree import FileEntry
from shardfs.staging.ingest import SMALL, Ingest, Ingested
from shardfs.store.store import Batch, Store
from shardfs.tensors import detector, sniff

KIB = 1 << 10
MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / "store")
    yield made
    made.close()


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield fd
    finally:
        os.close(fd)


def put(store: Store, path: Path, **options: Any) -> Ingested:
    with store.batch() as batch, Ingest(batch) as ingest, opened(path) as fd:
        return ingest.file(fd, os.fsencode(path.name), **options)


def plaintext(store: Store, kind: Kind, id_: bytes) -> bytes:
    (location, *_) = store.find(id_)
    encoded = store.read(location)
    data = registry.decode(encoded.codec, encoded.payload, location.entry.raw_size)
    assert content_id(kind, data) == id_
    return data


def manifest_of(store: Store, content: Ingested) -> Manifest:
    assert content.manifest is not None
    return Manifest.from_bytes(plaintext(store, Kind.MANIFEST, content.manifest))


def read_back(store: Store, content: Ingested) -> bytes:
    if content.manifest is not None:
        chunks = manifest_of(store, content).chunks
        return b"".join(plaintext(store, Kind.CHUNK, chunk.id) for chunk in chunks)
    return plaintext(store, Kind.CHUNK, content.chunk) if content.chunk is not None else b""


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def sizes_of(data: bytes, extents: tuple[tuple[int, int], ...] = ()) -> list[int]:
    cursor, sizes = Cursor(len(data), extents), []
    while not cursor.finished:
        sizes.append(cursor.cut(memoryview(data)[cursor.offset :]))
    return sizes


def test_an_empty_file_has_neither_chunk_nor_manifest(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    content = put(store, path)
    assert (content.size, content.chunk, content.manifest, content.media) == (0, None, None, None)
    assert content.entry(b"x") == FileEntry(b"x", 0)
    assert store.index.packs() == {}


@pytest.mark.parametrize("size", [1, 10_000, SMALL, SMALL + 1, 255 * KIB + 7])
def test_one_chunk_needs_no_manifest(store: Store, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(size))
    content = put(store, path)
    assert content.manifest is None
    assert content.entry(b"x", executable=True) == FileEntry(b"x", size, True, content.chunk)
    assert read_back(store, content) == noise(size)


@pytest.mark.parametrize("size", [3 * MIB, 16 * MIB, 16 * MIB + 1, 50 * MIB + 12_345])
def test_large_files_are_cut_as_documented(store: Store, tmp_path: Path, size: int) -> None:
    data = noise(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    content = put(store, path)
    assert [chunk.size for chunk in manifest_of(store, content).chunks] == sizes_of(data)
    assert read_back(store, content) == data
    assert content.media is None


def test_files_one_after_another_share_buffers(store: Store, tmp_path: Path) -> None:
    files = {f"{i}": noise(size, i) for i, size in enumerate([20 * MIB, 100, 17 * MIB, 5 * MIB])}
    with store.batch() as batch, Ingest(batch) as ingest:
        contents = {}
        for name, data in files.items():
            (tmp_path / name).write_bytes(data)
            with opened(tmp_path / name) as fd:
                contents[name] = ingest.file(fd, name.encode())
    assert all(read_back(store, contents[name]) == data for name, data in files.items())


def test_model_files_are_recognised_and_cut_at_tensors(store: Store, tmp_path: Path) -> None:
    big, small = torch.randn(700, 1024), torch.randn(10)
    save_file({"big": big, "small": small}, tmp_path / "m.safetensors", metadata={"format": "pt"})
    torch.save({"state": {"big": big}, "small": small}, tmp_path / "m.pt")
    safe, pickled = put(store, tmp_path / "m.safetensors"), put(store, tmp_path / "m.pt")
    assert safe.media == Media("safetensors", "pytorch", 2, 700 * 1024 + 10)
    assert pickled.media == Media("torch-zip", "pytorch", 2, 700 * 1024 + 10)
    assert manifest_of(store, safe).media == safe.media
    chunks = [{c.id for c in manifest_of(store, each).chunks} for each in (safe, pickled)]
    shared = [c.size for c in manifest_of(store, safe).chunks if c.id in chunks[0] & chunks[1]]
    assert sum(shared) == 700 * 1024 * 4
    assert read_back(store, pickled) == (tmp_path / "m.pt").read_bytes()


def test_a_small_model_file_has_a_manifest_for_its_media(store: Store, tmp_path: Path) -> None:
    save_file({"a": torch.zeros(3)}, tmp_path / "m.safetensors")
    content = put(store, tmp_path / "m.safetensors")
    assert content.media == Media("safetensors", None, 1, 3)
    assert content.chunk is None
    assert read_back(store, content) == (tmp_path / "m.safetensors").read_bytes()


def test_a_broken_model_file_is_an_ordinary_file(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"a": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes()[:-1])
    content = put(store, path)
    assert content.media is None
    assert content.chunk is not None


def test_the_same_bytes_are_stored_once(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(noise(9 * MIB))
    (tmp_path / "b").write_bytes(noise(9 * MIB))
    with store.batch() as batch, Ingest(batch) as ingest:
        with opened(tmp_path / "a") as fd:
            first = ingest.file(fd, b"a")
        stored = batch.stored_bytes
        with opened(tmp_path / "b") as fd:
            assert ingest.file(fd, b"b").manifest == first.manifest
        assert batch.stored_bytes == stored
    assert put(store, tmp_path / "a").manifest == first.manifest
    assert len(store.index.packs()) == 1


def test_equal_chunks_in_flight_are_encoded_once(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode, sizes = registry.encode, []

    def counting(data: Any, *rest: Any) -> Any:
        sizes.append(len(data))
        return encode(data, *rest)

    monkeypatch.setattr(registry, "encode", counting)
    (tmp_path / "a").write_bytes(bytes(64 * MIB))
    put(store, tmp_path / "a")
    assert sizes.count(4 * MIB) == 1


def holed(path: Path, size: int, pieces: dict[int, bytes]) -> None:
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in pieces.items():
            file.seek(offset)
            file.write(data)


def test_holes_are_cut_as_zeros_are(store: Store, tmp_path: Path) -> None:
    size, pieces = 60 * MIB + 5, {0: b"x", 7 * MIB: noise(3 * MIB), 33 * MIB + 11: noise(100)}
    holed(tmp_path / "sparse", size, pieces)
    data = (tmp_path / "sparse").read_bytes()
    (tmp_path / "dense").write_bytes(data)
    assert (tmp_path / "sparse").stat().st_blocks < (tmp_path / "dense").stat().st_blocks
    content = put(store, tmp_path / "sparse")
    assert content.manifest == put(store, tmp_path / "dense").manifest
    assert read_back(store, content) == data


def test_holes_are_not_read(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preadv, read = os.preadv, []

    def counting(fd: int, buffers: Any, offset: int) -> int:
        read.append(preadv(fd, buffers, offset))
        return read[-1]

    monkeypatch.setattr(os, "preadv", counting)
    holed(tmp_path / "sparse", 16 << 30, {5 << 30: noise(MIB)})
    content = put(store, tmp_path / "sparse")
    assert sum(read) <= 40 * MIB
    manifest = manifest_of(store, content)
    assert manifest.size == 16 << 30
    assert 4096 <= len(manifest.chunks) <= 4100


def rewrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(5)
        file.write(b"changed")


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shorten(path: Path) -> None:
    os.truncate(path, 17 * MIB)


CHANGES: list[Callable[[Path], None]] = [rewrite, append, shorten, Path.touch]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_while_reading_is_an_error(store: Store, tmp_path: Path, change: Callable[[Path], None]) -> None:
    path, other = tmp_path / "moving", tmp_path / "other"
    path.write_bytes(noise(60 * MIB))
    other.write_bytes(noise(60 * MIB))
    seen: list[int] = []

    def progress(count: int) -> None:
        if not seen:
            change(path)
        seen.append(count)

    with store.batch() as batch, Ingest(batch, progress) as ingest:
        with opened(path) as fd, pytest.raises(FileChangedError, match="moving changed"):
            ingest.file(fd, b"moving")
        # What was on its way when it failed must not pass for stored.
        with opened(other) as fd:
            content = ingest.file(fd, b"other")
    assert read_back(store, content) == noise(60 * MIB)
    kinds = [e.kind for pack in store.index.packs() for e in store.index.entries(pack)]
    assert kinds.count(Kind.MANIFEST) == 1


@pytest.mark.parametrize("change", [rewrite, append, Path.touch])
def test_a_change_of_a_small_file_is_an_error(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None]
) -> None:
    path = tmp_path / "moving"
    path.write_bytes(noise(1000))
    detect = sniff.detect

    def changing(*arguments: Any) -> Any:
        change(path)
        return detect(*arguments)

    monkeypatch.setattr(detector, "detect", changing)
    with pytest.raises(FileChangedError, match="moving changed"):
        put(store, path)
    assert store.index.packs() == {}


def test_a_file_written_just_now_is_not_racy_when_read(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "fresh"
    path.write_bytes(b"x")
    with opened(path) as fd, store.batch() as batch, Ingest(batch) as ingest:
        stamp = ingest.file(fd, b"fresh").stamp
        assert not stamp.is_racy(time.time_ns())
    assert stamp.ino == path.stat().st_ino


@pytest.mark.parametrize("size", [0, 1000, 5 * MIB])
def test_a_stable_front_of_a_growing_file(store: Store, tmp_path: Path, size: int) -> None:
    path = tmp_path / "log"
    path.write_bytes(noise(6 * MIB))
    with store.batch() as batch, Ingest(batch, lambda _: append(path)) as ingest, opened(path) as fd:
        content = ingest.file(fd, b"log", size=size)
    assert read_back(store, content) == noise(6 * MIB)[:size]


def test_a_front_longer_than_the_file_is_an_error(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(noise(1000))
    for size in (2000, 2 * MIB):
        with pytest.raises(FileChangedError, match="short"):
            put(store, path, size=size)


def test_other_kinds_of_files_are_refused_by_name(store: Store, tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        with store.batch() as batch, Ingest(batch) as ingest:
            with pytest.raises(UnsupportedFileError, match="a pipe"):
                ingest.file(read, b"a pipe")
            with opened(tmp_path) as fd, pytest.raises(UnsupportedFileError, match=r"bad\\xffname"):
                ingest.file(fd, b"bad\xffname")
    finally:
        os.close(read)
        os.close(write)


@pytest.mark.parametrize("size", [100, 2 * MIB])
def test_what_cannot_be_read_is_named(store: Store, tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(size))
    fd = os.open(path, os.O_WRONLY)
    try:
        with store.batch() as batch, Ingest(batch) as ingest, pytest.raises(StoreError, match="cannot read file"):
            ingest.file(fd, b"file")
    finally:
        os.close(fd)


def test_an_error_on_a_worker_reaches_the_caller_and_leaves_nothing_claimed(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(30 * MIB))
    encode, calls = registry.encode, []

    def failing(data: Any, *rest: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise MemoryError
        return encode(data, *rest)

    monkeypatch.setattr(registry, "encode", failing)
    with store.batch() as batch, Ingest(batch) as ingest, opened(path) as fd:
        with pytest.raises(MemoryError):
            ingest.file(fd, b"file")
        content = ingest.file(fd, b"file")
    assert read_back(store, content) == noise(30 * MIB)


def test_a_failing_write_ends_the_batch_and_nothing_is_published(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(noise(30 * MIB))

    def full(*_: object) -> None:
        raise StoreError("no space")

    monkeypatch.setattr(Batch, "put_encoded", full)
    with pytest.raises(StoreError, match="no space"):
        put(store, path)
    monkeypatch.undo()
    assert store.index.packs() == {}
    assert read_back(store, put(store, path)) == noise(30 * MIB)


def test_progress_adds_up(store: Store, tmp_path: Path) -> None:
    done: list[int] = []
    with store.batch() as batch, Ingest(batch, done.append) as ingest:
        for name, size in (("a", 20 * MIB), ("b", 1000), ("c", 0)):
            (tmp_path / name).write_bytes(noise(size))
            with opened(tmp_path / name) as fd:
                ingest.file(fd, name.encode())
    assert sum(done) == 20 * MIB + 1000
    assert len(done) > 5


def test_workers_leave_no_descriptors_open(store: Store, tmp_path: Path) -> None:
    def opened_now(seed: int) -> int:
        (tmp_path / "file").write_bytes(noise(3 * MIB, seed))
        put(store, tmp_path / "file")
        return len(os.listdir("/proc/self/fd"))

    # SQLite puts off closing some while another connection holds a lock, hence the room: a leak would be 2 a file.
    first = [opened_now(seed) for seed in range(3)]
    assert max(opened_now(seed) for seed in range(3, 13)) <= max(first) + 6


MEASURE = """
import os, random, resource, sys
sys.path.insert(0, {root!r})
from pathlib import Path
from shardfs.staging.ingest import Ingest
from shardfs.store.store import Store
base = Path({base!r})
with (base / "big").open("wb") as file:
    file.truncate(2 << 30)
    for part in range(6):
        file.seek(part * (300 << 20))
        file.write(random.Random(part).randbytes(64 << 20))
store = Store.create(base / "store")
with store.batch() as batch, Ingest(batch) as ingest:
    content = ingest.file(os.open(base / "big", os.O_RDONLY), b"big")
assert content.size == 2 << 30 and batch.stored_bytes > 300 << 20
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_stays_bounded(tmp_path: Path) -> None:
    script = MEASURE.format(root=str(Path(__file__).parents[3]), base=str(tmp_path))
    # The sizes of the process before its exec count in ru_maxrss, so a shell stands in between.
    run = ["sh", "-c", '"$0" -c "$1"; exit $?', sys.executable, script]
    got = subprocess.run(run, capture_output=True, text=True, check=False)
    assert got.returncode == 0, got.stderr
    assert int(got.stdout) <= 250
