"""Reading ahead: starts on sequential reads, never twice, never in the way."""

from __future__ import annotations

import threading

from shardfs.errors import ChunkNotFoundError
from shardfs.formats.ids import ChunkId, chunk_id
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.tree import FileEntry
from shardfs.history.content import AHEAD_CHUNKS, FileReader
from shardfs.history.objects import Objects
from shardfs.transfer.ahead import MAX_PENDING, Ahead

REFS = [ChunkRef(chunk_id(bytes([n]) * 10), 10) for n in range(40)]


class _Source:
    def chunk(self, id_: ChunkId, raw_size: int) -> bytes:
        return next(bytes([n]) * 10 for n in range(40) if chunk_id(bytes([n]) * 10) == id_)[:raw_size]


class _Manifests:
    def object(self, kind: object, id_: bytes) -> bytes:
        del kind, id_
        return Manifest(400, tuple(REFS)).to_bytes()


def _reader(asked: list[ChunkRef]) -> FileReader:
    manifest = Manifest(400, tuple(REFS))
    entry = FileEntry(b"f", 400, manifest=manifest.id)
    return FileReader(entry, Objects(_Manifests()), _Source(), asked.extend)


def test_sequential_reads_ask_for_the_following_chunks() -> None:
    asked: list[ChunkRef] = []
    reader = _reader(asked)
    for offset in range(0, 25, 5):
        reader.read_at(offset, 5)
    assert asked == [*REFS[2 : 2 + AHEAD_CHUNKS], *REFS[3 : 3 + AHEAD_CHUNKS]]


def test_random_reads_ask_for_nothing() -> None:
    asked: list[ChunkRef] = []
    reader = _reader(asked)
    for offset in (300, 20, 150, 390, 0, 70):
        reader.read_at(offset, 4)
    assert asked == []


def test_whole_files_are_read_ahead_and_in_order() -> None:
    asked: list[ChunkRef] = []
    assert b"".join(_reader(asked).blocks()) == b"".join(bytes([n]) * 10 for n in range(40))
    assert asked[:AHEAD_CHUNKS] == REFS[1 : 1 + AHEAD_CHUNKS]


def test_each_chunk_is_loaded_once_and_failures_are_kept_quiet() -> None:
    loaded: list[bytes] = []
    done = threading.Event()

    def load(id_: ChunkId, size: int) -> bytes:
        del size
        loaded.append(id_)
        if len(loaded) == 3:
            done.set()
        raise ChunkNotFoundError

    ahead = Ahead(load)
    ahead.want(REFS[:3])
    assert done.wait(10)
    ahead.close()
    assert sorted(loaded) == sorted(ref.id for ref in REFS[:3])


def test_a_full_queue_drops_what_does_not_fit() -> None:
    gate = threading.Event()
    loaded: list[bytes] = []

    def load(id_: ChunkId, size: int) -> bytes:
        del size
        gate.wait(10)
        loaded.append(id_)
        return b""

    ahead = Ahead(load)
    ahead.want(REFS)
    ahead.want(REFS[:5])
    last = REFS[MAX_PENDING - 1].id
    gate.set()
    for _ in range(1000):
        if last in loaded:
            break
        threading.Event().wait(0.01)
    ahead.close()
    assert len(loaded) <= MAX_PENDING
    assert len(set(loaded)) == len(loaded)
