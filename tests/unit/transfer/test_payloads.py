"""Payloads from remotes: bases in the same round, neighbours in the same request, each byte once."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from shardfs.codecs import registry
from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.registry import Encoded
from shardfs.errors import PackNotFoundError, RemoteTimeoutError, RemoteUnavailableError
from shardfs.formats.ids import Kind, chunk_id
from shardfs.formats.manifest import ChunkRef
from shardfs.store.cache import Cache
from shardfs.store.index import Location
from shardfs.store.store import Store
from shardfs.transfer import requests
from shardfs.transfer.couriers import MAX_AHEAD
from shardfs.transfer.keeper import Keeper, Parcel
from shardfs.transfer.reader import Reader, _instances
from tests import stores
from tests.serving import serving
from tests.stores import FolderSource, XorCodec, noise

SIZE = 8192
DEPTH = 5


@pytest.fixture(autouse=True)
def _xor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CODECS, XorCodec.code, XorCodec())


def chains(store: Store, count: int, size: int = SIZE) -> list[list[bytes]]:
    """Chunks in chains of `DEPTH` differences: one pack for each version, as a series of commits makes them."""
    versions = [[noise(1000 * version + i, size) for i in range(count)] for version in range(DEPTH + 1)]
    with store.batch() as batch:
        for data in versions[0]:
            batch.put(Kind.CHUNK, data)
    for before, after in pairwise(versions):
        with store.batch() as batch:
            for base, data in zip(before, after, strict=True):
                encoded = Encoded(XorCodec.code, XorCodec().encode(data, base), (chunk_id(base),))
                batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, len(data))
    return versions


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "root" / "full")
    yield store
    store.close()


@pytest.fixture
def lazy(tmp_path: Path) -> Iterator[Store]:
    """A store without packs."""
    store = Store.create(tmp_path / "lazy")
    yield store
    store.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache.open(tmp_path / "cache", limit_bytes=256 << 20, free_floor_bytes=0)
    yield cache
    for reader in list(_instances):
        reader.close()  # what came lately is still being written
    cache.close()


def small_reader(store: Store, source: FolderSource, cache: Cache | None = None) -> Reader:
    """A reader whose budget lets one megabyte of payloads wait."""
    return Reader(store, cache=cache, remote=lambda _: source, budget_bytes=4_000_000, deadline_s=10)


def location(store: Store, data: bytes) -> Location:
    return store.find(chunk_id(data))[0]


def test_a_chunk_and_all_its_bases_come_in_one_round(lazy: Store, full: Store) -> None:
    versions = chains(full, 3)
    stores.know_remote_packs(lazy, full)
    source, together = FolderSource(full), threading.Barrier(DEPTH + 1)
    source.before = lambda: together.wait(10)  # fails unless all requests are on their way at the same time
    reader = Reader(lazy, remote=lambda _: source)
    data = versions[-1][1]
    assert reader.chunk(chunk_id(data), SIZE) == data
    assert len(source.requests) == DEPTH + 1
    assert sum(length for _, _, length in source.requests) == (DEPTH + 1) * SIZE


def test_a_deep_chain_costs_little_more_than_it_is_stored_in(lazy: Store, full: Store, cache: Cache) -> None:
    """Counted on a real server's connection: one chunk among others, five differences deep."""
    size = 256 << 10
    versions = chains(full, 6, size)
    stores.know_remote_packs(lazy, full)
    with serving(full.layout.root.parent) as server:
        from shardfs.remotes.http import HttpRemote

        remote = HttpRemote(f"{server.url}/full")
        reader = Reader(lazy, cache=cache, remote=lambda _: remote)
        data = versions[-1][2]
        assert reader.chunk(chunk_id(data), size) == data
        traffic = reader.traffic
        reader.close()
        remote.close()
    assert traffic.bytes <= 1.1 * (DEPTH + 1) * size + (1 << 20)
    assert traffic.payloads == traffic.requests == DEPTH + 1


def test_bases_of_neighbours_come_with_them(lazy: Store, full: Store, cache: Cache) -> None:
    versions = chains(full, 8)
    stores.know_remote_packs(lazy, full)
    source = FolderSource(full)
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    assert [reader.chunk(chunk_id(data), SIZE) for data in versions[-1]] == versions[-1]
    traffic = reader.traffic
    assert traffic.requests == len(source.requests) == DEPTH + 1
    assert traffic.bytes == traffic.payloads * SIZE == 8 * (DEPTH + 1) * SIZE
    assert traffic.coalesced == traffic.payloads


def test_what_is_brought_is_not_asked_for_again(lazy: Store, full: Store, cache: Cache) -> None:
    versions = chains(full, 8)
    stores.know_remote_packs(lazy, full)
    source = FolderSource(full)
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    wanted = [ChunkRef(chunk_id(data), SIZE) for data in versions[-1]]
    assert reader.bring(wanted) == 8 * (DEPTH + 1) * SIZE
    reader.bring(wanted)
    assert [reader.chunk(ref.id, ref.size) for ref in wanted] == versions[-1]
    reader.close()
    assert reader.traffic.payloads == 8 * (DEPTH + 1)
    assert reader.traffic.waiting_bytes == 0
    again = Reader(lazy, cache=cache, remote=lambda _: source)
    assert again.bring(wanted) == 0
    assert [again.chunk(ref.id, ref.size) for ref in wanted] == versions[-1]
    assert again.traffic.requests == 0


def test_what_the_first_chunk_needs_is_brought_first(
    lazy: Store, full: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.transfer.ranges.PIECE", SIZE)
    monkeypatch.setattr("shardfs.transfer.couriers.MAX_AHEAD", 1)
    versions = chains(full, 8)
    stores.know_remote_packs(lazy, full)
    known = {location(lazy, data): i for version in versions for i, data in enumerate(version)}
    places = {(found.pack, found.entry.offset): i for found, i in known.items()}
    source = FolderSource(full)
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    order = [5, 2, 7, 0, 1, 6, 3, 4]
    reader.bring([ChunkRef(chunk_id(versions[-1][i]), SIZE) for i in order])
    until = time.monotonic() + 10
    while reader.traffic.payloads < 8 * (DEPTH + 1):
        assert time.monotonic() < until
        time.sleep(0.001)
    asked = [places[pack, offset] for pack, offset, _ in source.requests]
    assert asked == [i for i in order for _ in range(DEPTH + 1)]


def test_threads_that_want_the_same_base_ask_for_it_once(lazy: Store, full: Store) -> None:
    base = noise(0, SIZE)
    datas = [noise(1 + i, SIZE) for i in range(4)]
    with full.batch() as batch:
        batch.put(Kind.CHUNK, base)
        for data in datas:
            encoded = Encoded(XorCodec.code, XorCodec().encode(data, base), (chunk_id(base),))
            batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, SIZE)
    stores.know_remote_packs(lazy, full)
    source, gate = FolderSource(full), threading.Event()
    source.before = lambda: gate.wait(10)
    reader = Reader(lazy, remote=lambda _: source)
    found: dict[bytes, bytes] = {}

    def read(data: bytes) -> None:
        found[data] = reader.chunk(chunk_id(data), SIZE)

    threads = [threading.Thread(target=read, args=(data,)) for data in datas]
    for thread in threads:
        thread.start()
    while len(source.requests) < len(datas):
        pass
    gate.set()
    for thread in threads:
        thread.join()
    assert all(found[data] == data for data in datas)
    assert reader.traffic.payloads == len(datas) + 1


def _one_after_the_other(source: FolderSource, outcomes: list[Callable[[], object]]) -> None:
    source.before = lambda: outcomes.pop(0)() if outcomes else None


def _raise(error: Exception) -> Callable[[], object]:
    def fail() -> object:
        raise error

    return fail


def test_a_range_that_fails_is_tried_without_what_came_along(lazy: Store, full: Store, cache: Cache) -> None:
    versions = chains(full, 4)
    stores.know_remote_packs(lazy, full)
    source = FolderSource(full)
    _one_after_the_other(source, [_raise(RemoteUnavailableError("too much at once"))])
    here = location(lazy, versions[0][0])
    reader = small_reader(lazy, source, cache)
    assert reader._payloads.get(here).payload == versions[0][0]
    assert [length for _, _, length in source.requests] == [4 * SIZE, SIZE]


@pytest.mark.parametrize("error", [RemoteTimeoutError("silent"), PackNotFoundError("gone")])
def test_other_failures_are_told_at_once(lazy: Store, full: Store, cache: Cache, error: Exception) -> None:
    versions = chains(full, 4)
    stores.know_remote_packs(lazy, full)
    source = FolderSource(full)
    _one_after_the_other(source, [_raise(error)])
    reader = small_reader(lazy, source, cache)
    got = reader._payloads
    here = location(lazy, versions[0][0])
    with pytest.raises(type(error)):
        got.get(here)
    assert len(source.requests) == 1
    assert got.get(here).payload == versions[0][0]  # nothing of the failure is left
    assert got.traffic().failed == 1


def test_what_nobody_takes_makes_room(lazy: Store, full: Store, cache: Cache) -> None:
    size = 100_000
    data = [noise(i, size) for i in range(40)]
    with full.batch() as batch:
        for one in data:
            batch.put(Kind.CHUNK, one)
    stores.know_remote_packs(lazy, full)
    reader = small_reader(lazy, FolderSource(full), cache)
    reader.bring([ChunkRef(chunk_id(one), size) for one in data])
    for _ in range(10_000):
        if all(cache.contains(chunk_id(one)) for one in data) and reader.traffic.waiting_bytes <= 1_000_000:
            break
        time.sleep(0.001)
    else:
        pytest.fail(f"still waiting: {reader.traffic}")


def test_the_cache_has_what_was_read_last(
    lazy: Store, full: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = chains(full, 1)
    stores.know_remote_packs(lazy, full)
    add = Keeper.add

    def add_slowly(keeper: Keeper, parcel: Parcel) -> None:
        time.sleep(0.1)
        add(keeper, parcel)

    monkeypatch.setattr(Keeper, "add", add_slowly)
    reader = small_reader(lazy, FolderSource(full), cache)
    assert reader.chunk(chunk_id(versions[0][0]), SIZE) == versions[0][0]
    assert reader.settle()
    assert cache.contains(chunk_id(versions[0][0]))


def test_what_comes_ahead_waits_for_a_slow_disk(
    lazy: Store, full: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 100_000
    data = [noise(i, size) for i in range(100)]
    with full.batch() as batch:
        for one in data:
            batch.put(Kind.CHUNK, one)
    stores.know_remote_packs(lazy, full)
    monkeypatch.setattr("shardfs.transfer.payloads._LEAST_UNKEPT", 500_000)
    monkeypatch.setattr("shardfs.transfer.ranges.PIECE", size)
    reader, slow, put = small_reader(lazy, FolderSource(full), cache), threading.Event(), cache.put
    monkeypatch.setattr(cache, "put", lambda *record: slow.wait(20) and put(*record))
    reader.bring([ChunkRef(chunk_id(one), size) for one in data])
    time.sleep(0.2)
    assert 500_000 <= reader.traffic.waiting_bytes <= 1_000_000 + (MAX_AHEAD + 1) * size
    assert reader.chunk(chunk_id(data[-1]), size) == data[-1]  # what somebody waits for goes on
    slow.set()
    until = time.monotonic() + 20
    while not all(cache.contains(chunk_id(one)) for one in data[:-1]):
        assert time.monotonic() < until
        time.sleep(0.001)


def test_damage_is_forgotten_everywhere(lazy: Store, full: Store, cache: Cache) -> None:
    versions = chains(full, 4)
    stores.know_remote_packs(lazy, full)
    source = FolderSource(full)
    source.lies = DEPTH + 1
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    assert [reader.chunk(chunk_id(data), SIZE) for data in versions[-1]] == versions[-1]
    reader.close()
    for version in versions:
        for data in version:
            kept = cache.get(chunk_id(data))
            assert kept is not None
            assert bytes(kept.payload) == bytes(full.read(full.find(chunk_id(data))[0]).payload)


def test_a_chain_that_is_too_long_ends(lazy: Store, full: Store) -> None:
    datas = [noise(i, 512) for i in range(MAX_BASE_DEPTH + 4)]
    with full.batch() as batch:
        batch.put(Kind.CHUNK, datas[0])
        for base, data in pairwise(datas):
            encoded = Encoded(XorCodec.code, XorCodec().encode(data, base), (chunk_id(base),))
            batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, 512)
    stores.know_remote_packs(lazy, full)
    source = FolderSource(full)
    small_reader(lazy, source)._payloads.get(location(lazy, datas[-1]))
    assert sum(length for _, _, length in source.requests) <= (MAX_BASE_DEPTH + 2) * 512


def test_what_is_here_is_not_asked_for(lazy: Store, full: Store, cache: Cache) -> None:
    versions = chains(full, 1)
    with lazy.batch() as batch:
        batch.put(Kind.CHUNK, versions[2][0])
    stores.know_remote_packs(lazy, full)
    entry = location(full, versions[4][0]).entry
    cache.put(entry.id, entry.codec, entry.raw_size, entry.bases, bytes(full.read(full.find(entry.id)[0]).payload))
    source = FolderSource(full)
    reader = Reader(lazy, remote=lambda _: source, cache=cache)
    assert reader.chunk(chunk_id(versions[-1][0]), SIZE) == versions[-1][0]
    reader.close()
    assert reader.traffic.payloads == 2  # the chunk itself and what lies between the cache and the pack here


def requests_in_memory() -> list[object]:
    """Those of all readers, those of other tests included."""
    return [found for found in gc.get_objects() if type(found) is requests.Request]


def test_what_was_brought_is_freed_once_it_was_taken_and_kept(lazy: Store, full: Store, cache: Cache) -> None:
    """Not by the collector of cycles, which runs when it likes: hundreds of megabytes would wait for it."""
    versions = chains(full, 8, 64 << 10)
    stores.know_remote_packs(lazy, full)
    source = FolderSource(full)
    reader = Reader(lazy, cache=cache, remote=lambda _: source)
    wanted = [ChunkRef(chunk_id(data), 64 << 10) for data in versions[-1]]
    gc.collect()
    others = set(map(id, requests_in_memory()))
    gc.disable()
    try:
        reader.bring(wanted)
        for ref in wanted:
            reader.chunk(ref.id, ref.size)
        assert reader.settle()
        mine = [request for request in requests_in_memory() if id(request) not in others]
        assert len(mine) <= 1  # the cache's writer may hold the last one for a moment
    finally:
        gc.enable()
    assert len(source.requests) > DEPTH
