from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from shardfs.codecs import registry
from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    ChunkCorruptedError,
    ChunkNotFoundError,
    ObjectCorruptedError,
    ObjectNotFoundError,
    RemoteUnavailableError,
)
from shardfs.formats.ids import ChunkId, Kind, chunk_id
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.store.cache import Cache
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.transfer import ranges
from shardfs.transfer.reader import Reader, _instances
from tests import stores
from tests.stores import CHUNK_SIZE, FolderSource, XorCodec, commit, flip, noise

DATA = noise(1, 40 * CHUNK_SIZE)
CHUNKS = [DATA[i : i + CHUNK_SIZE] for i in range(0, len(DATA), CHUNK_SIZE)]
IDS = [chunk_id(c) for c in CHUNKS]


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Store]:
    """A store with one commit of one file."""
    store = Store.create(tmp_path / "full")
    commit(store, {"model.bin": DATA})
    yield store
    store.close()


@pytest.fixture
def lazy(tmp_path: Path, full: Store) -> Iterator[Store]:
    """A store without packs that knows those of `full` as remote origin."""
    store = Store.create(tmp_path / "lazy")
    stores.know_remote_packs(store, full)
    yield store
    store.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache.open(tmp_path / "cache", limit_bytes=64 << 20, free_floor_bytes=0)
    yield cache
    for reader in list(_instances):
        reader.close()  # what came lately is still being written
    cache.close()


def _read(reader: Reader, number: int) -> bytes:
    return reader.chunk(IDS[number], CHUNK_SIZE)


def test_reads_local_packs_then_memory(full: Store) -> None:
    reader = Reader(full)
    assert [_read(reader, i) for i in range(40)] == CHUNKS
    assert [_read(reader, i) for i in range(40)] == CHUNKS
    counters = reader.counters()
    assert (counters.local_reads, counters.memory_hits) == (40, 40)
    assert counters.memory_bytes == len(DATA)


def test_memory_stays_in_its_budget(full: Store) -> None:
    reader = Reader(full, budget_bytes=10 * CHUNK_SIZE)
    for i in range(40):
        _read(reader, i)
        assert reader.counters().memory_bytes <= 10 * CHUNK_SIZE
    reader.close()
    assert reader.counters().memory_bytes == 0


def test_objects_and_files(full: Store) -> None:
    reader = Reader(full)
    objects = Objects(reader)
    tip = full.refs.head_commit()
    assert tip is not None
    entry = objects.tree(objects.commit(tip).tree).by_name[b"model.bin"]
    assert FileReader(entry, objects, reader).read_at(100, 3 * CHUNK_SIZE) == DATA[100 : 100 + 3 * CHUNK_SIZE]  # type: ignore[arg-type]


def test_unknown_ids(full: Store) -> None:
    reader = Reader(full)
    with pytest.raises(ChunkNotFoundError, match=bytes(32).hex()[:12]):
        reader.chunk(ChunkId(bytes(32)), 10)
    with pytest.raises(ObjectNotFoundError, match="tree"):
        reader.object(Kind.TREE, bytes(32))
    with pytest.raises(ObjectCorruptedError, match="stored as a chunk"):
        reader.object(Kind.TREE, IDS[0])


@pytest.mark.parametrize("size", [CHUNK_SIZE - 1, CHUNK_SIZE + 1, 1 << 40, 0])
def test_another_size_is_refused(full: Store, size: int) -> None:
    reader = Reader(full)
    for _ in range(2):
        with pytest.raises(ChunkCorruptedError, match=r"expected|bytes"):
            reader.chunk(IDS[0], size)
        _read(reader, 0)


def test_damaged_local_copy_falls_through_to_another_pack(
    full: Store, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    [(first, entry)] = [(p, e) for p, e in stores.local_entries(full) if e.id == IDS[3]]
    monkeypatch.setattr("shardfs.store.store.Batch.has", lambda *_: set())
    commit(full, {"again.bin": DATA})
    damaged = full.find(IDS[3])[0]
    flip(full.layout.pack(damaged.pack), damaged.entry.offset + 7)
    assert damaged.pack != first or damaged.entry == entry
    reader = Reader(full, budget_bytes=0)
    with caplog.at_level(logging.WARNING):
        assert _read(reader, 3) == CHUNKS[3]
        assert _read(reader, 3) == CHUNKS[3]
    assert reader.counters().healed == 2
    assert len([r for r in caplog.records if "damaged" in r.message]) == 1


def test_only_copy_damaged_is_an_error_that_names_chunk_and_pack(full: Store) -> None:
    location = full.find(IDS[3])[0]
    flip(full.layout.pack(location.pack), location.entry.offset + 7)
    reader = Reader(full)
    with pytest.raises(ChunkCorruptedError) as caught:
        _read(reader, 3)
    assert IDS[3].hex()[:12] in str(caught.value)
    assert location.pack.hex()[:12] in str(caught.value)
    assert _read(reader, 4) == CHUNKS[4]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entries SET offset = offset + 1",
        "UPDATE entries SET offset = -5",
        "UPDATE entries SET stored_size = 1 << 50, raw_size = 1 << 51",
        "UPDATE entries SET raw_size = raw_size + 8",
        "UPDATE entries SET codec = codec + 64",
        "UPDATE entries SET codec = 'x', offset = x'00'",
        "UPDATE entries SET kind = 3",
        "UPDATE entries SET bases = x'01'",
        "UPDATE entries SET id = zeroblob(32) WHERE kind = 1 AND rowid = 1",
        "DELETE FROM entries",
        "UPDATE packs SET id = zeroblob(32)",
        "UPDATE packs SET id = 5",
        "UPDATE copies SET place = 'nowhere'",
    ],
)
def test_a_wrong_index_is_mended_from_the_packs(full: Store, change: str) -> None:
    stores.sql(full, change.replace("AND rowid = 1", "AND offset = 16"))
    reader = Reader(full)
    assert [_read(reader, i) for i in range(40)] == CHUNKS
    tip = full.refs.head_commit()
    assert tip is not None
    Objects(reader).commit(tip)


def test_index_is_compared_with_packs_once_a_minute(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Store] = []
    monkeypatch.setattr(Store, "reconcile", lambda self: bool(calls.append(self)))  # type: ignore[func-returns-value]
    for _ in range(3):
        with pytest.raises(ChunkNotFoundError):
            Reader(full).chunk(ChunkId(bytes(32)), 5)
    assert len(calls) == 1


def test_remote_reads_come_with_neighbours(lazy: Store, full: Store, cache: Cache) -> None:
    source = FolderSource(full)
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    assert [_read(reader, i) for i in range(40)] == CHUNKS
    assert len(source.requests) == 1
    reader.close()
    again = Reader(lazy, cache=cache, remote=lambda _: source)
    assert [_read(again, i) for i in range(40)] == CHUNKS
    assert again.counters().cache_reads == 40
    assert len(source.requests) == 1


def test_a_request_brings_a_limited_number_of_neighbours(
    lazy: Store, full: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader of one tiny file must not wait until sixty thousand others are in the cache."""
    monkeypatch.setattr(ranges, "MAX_NEIGHBOURS", 9)
    source = FolderSource(full)
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    assert [_read(reader, i) for i in range(40)] == CHUNKS
    assert len(source.requests) == 4


def test_without_a_cache_only_what_is_wanted_is_read(lazy: Store, full: Store) -> None:
    source = FolderSource(full)
    reader = Reader(lazy, remote=lambda _: source)
    assert _read(reader, 5) == CHUNKS[5]
    assert [length for _, _, length in source.requests] == [lazy.find(IDS[5])[0].entry.stored_size]


def test_a_lying_remote_is_asked_once_more(lazy: Store, full: Store, cache: Cache) -> None:
    source = FolderSource(full)
    source.lies = 1
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    assert [_read(reader, i) for i in range(40)] == CHUNKS
    source.lies = 1000
    fresh = Reader(lazy, remote=lambda _: source)
    with pytest.raises(ChunkCorruptedError, match="at origin"):
        _read(fresh, 0)


def test_remote_failures_are_told(lazy: Store, full: Store) -> None:
    source = FolderSource(full)
    source.down = True
    reader = Reader(lazy, remote=lambda _: source)
    with pytest.raises(RemoteUnavailableError):
        _read(reader, 0)
    source.down = False
    assert _read(reader, 0) == CHUNKS[0]


def test_the_second_remote_is_asked_when_the_first_fails(lazy: Store, full: Store) -> None:
    stores.know_remote_packs(lazy, full, "spare")
    broken, good = FolderSource(full), FolderSource(full)
    broken.down = True
    reader = Reader(lazy, remote=lambda name: {"origin": broken, "spare": good}[name])
    assert _read(reader, 0) == CHUNKS[0]
    assert broken.requests


def test_damaged_local_copy_is_healed_from_a_remote(full: Store, tmp_path: Path) -> None:
    spare = Store.create(tmp_path / "spare")
    commit(spare, {"model.bin": DATA})
    stores.know_remote_packs(full, spare)
    location = full.find(IDS[0])[0]
    flip(full.layout.pack(location.pack), location.entry.offset)
    reader = Reader(full, remote=lambda _: FolderSource(full))
    if full.index.packs(LOCAL).keys() == spare.index.packs(LOCAL).keys():
        reader = Reader(full, remote=lambda _: FolderSource(spare))
    assert _read(reader, 0) == CHUNKS[0]
    assert reader.counters().healed == 1
    spare.close()


def test_a_damaged_cache_record_is_fetched_again(lazy: Store, full: Store, cache: Cache) -> None:
    entry = lazy.find(IDS[0])[0].entry
    bad = bytes(entry.stored_size)
    source = FolderSource(full)
    reader = Reader(lazy, cache=cache, remote=lambda _: source, budget_bytes=0)
    cache.put(IDS[0], 0, entry.raw_size, (), bad)
    assert _read(reader, 0) == CHUNKS[0]
    reader.close()
    cache.discard(IDS[1])
    cache.put(IDS[1], 77, 1 << 40, (), b"x")
    again = Reader(lazy, cache=cache, remote=lambda _: source, budget_bytes=0)
    assert _read(again, 1) == CHUNKS[1]
    assert again.counters().damaged == 1
    found = cache.get(IDS[0])
    assert found is not None
    assert registry.decode(found.codec, found.payload, found.raw_size) == CHUNKS[0]


def test_threads_share_one_fetch(lazy: Store, full: Store) -> None:
    arrived = threading.Event()

    source = FolderSource(full)
    source.before = lambda: arrived.wait(10)
    reader = Reader(lazy, remote=lambda _: source)
    results: list[bytes] = []
    threads = [threading.Thread(target=lambda: results.append(_read(reader, 0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    while reader.counters().shared < 7:
        pass
    arrived.set()
    for thread in threads:
        thread.join()
    assert results == [CHUNKS[0]] * 8
    assert len(source.requests) == 1


def test_threads_on_neighbours_share_one_request(lazy: Store, full: Store, cache: Cache) -> None:
    arrived, released = threading.Event(), threading.Event()

    source = FolderSource(full)
    source.before = lambda: arrived.set() or released.wait(10)  # type: ignore[func-returns-value]
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    results: dict[int, bytes] = {}

    def read(number: int) -> None:
        results[number] = _read(reader, number)

    threads = [threading.Thread(target=read, args=(i,)) for i in range(6)]
    threads[0].start()
    arrived.wait(10)
    for thread in threads[1:]:
        thread.start()
    while reader.counters().remote_reads < 6:
        pass
    released.set()
    for thread in threads:
        thread.join()
    assert [results[i] for i in range(6)] == CHUNKS[:6]
    assert len(source.requests) == 1


def test_a_forked_child_takes_no_lock_of_its_parent(full: Store) -> None:
    reader = Reader(full)
    reader._guard.acquire()
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if _read(reader, 0) == CHUNKS[0] else 1)
    reader._guard.release()
    assert os.waitpid(child, 0)[1] == 0
    assert _read(reader, 0) == CHUNKS[0]


def _chain(store: Store, length: int) -> list[bytes]:
    """Chunks, each stored as the difference to the one before."""
    datas = [noise(100 + i, 512) for i in range(length)]
    with store.batch() as batch:
        batch.put(Kind.CHUNK, datas[0])
        for base, data in pairwise(datas):
            encoded = Encoded(XorCodec.code, XorCodec().encode(data, base), (chunk_id(base),))
            batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, len(data))
    return datas


@pytest.fixture
def _xor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CODECS, XorCodec.code, XorCodec())


@pytest.mark.usefixtures("_xor")
def test_bases_are_resolved_up_to_a_depth(full: Store) -> None:
    datas = _chain(full, MAX_BASE_DEPTH + 3)
    assert Reader(full, budget_bytes=0).chunk(chunk_id(datas[MAX_BASE_DEPTH]), 512) == datas[MAX_BASE_DEPTH]
    with pytest.raises(ChunkCorruptedError, match="deep"):
        Reader(full, budget_bytes=0).chunk(chunk_id(datas[-1]), 512)


@pytest.mark.usefixtures("_xor")
def test_bases_in_a_circle_are_refused(full: Store) -> None:
    a, b = noise(1, 512), noise(2, 512)
    with full.batch() as batch:
        for data, base in ((a, b), (b, a)):
            encoded = Encoded(XorCodec.code, XorCodec().encode(data, base), (chunk_id(base),))
            batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, 512)
    reader = Reader(full)
    errors: list[Exception] = []

    def read(data: bytes) -> None:
        try:
            reader.chunk(chunk_id(data), 512)
        except ChunkCorruptedError as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(d,)) for d in (a, b)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(errors) == 2
