"""The cache on a sound disk: what goes in comes out, within the limits."""

from __future__ import annotations

import multiprocessing
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.store.cache import Cache, CachedPayload
from shardfs.store.segments import HEADER_SIZE

MIB = 1 << 20


def ident(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache.open(tmp_path / "cache", limit_bytes=64 * MIB, free_floor_bytes=0)
    yield cache
    cache.close()


def segment_bytes(cache: Cache) -> int:
    return sum(path.stat().st_size for path in cache.directory.glob("v3/*.seg"))


def directory_bytes(cache: Cache) -> int:
    return sum(path.stat().st_size for path in cache.directory.rglob("*") if path.is_file())


def test_returns_what_was_put(cache: Cache) -> None:
    payload, bases = os.urandom(100_000), (os.urandom(32), os.urandom(32))
    cache.put(ident(1), 1, 200_000, bases, payload)
    cache.put(ident(2), 0, 0, (), b"")
    assert cache.get(ident(1)) == CachedPayload(1, 200_000, bases, payload)
    assert cache.get(ident(2)) == CachedPayload(0, 0, (), b"")
    assert cache.get(ident(3)) is None
    assert cache.contains(ident(1))
    assert not cache.contains(ident(3))


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_takes_any_buffer(cache: Cache, kind: type) -> None:
    cache.put(ident(1), 1, 5, (), kind(b"12345"))
    found = cache.get(ident(1))
    assert found is not None
    assert found.payload == b"12345"


def test_second_put_of_an_id_writes_nothing(cache: Cache) -> None:
    cache.put(ident(1), 1, 1000, (), bytes(1000))
    before = segment_bytes(cache)
    cache.put(ident(1), 1, 1000, (), bytes(1000))
    assert segment_bytes(cache) == before


def test_discarded_payload_is_gone_and_can_be_put_again(cache: Cache) -> None:
    cache.put(ident(1), 1, 3, (), b"bad")
    cache.discard(ident(1))
    cache.discard(ident(1))
    assert cache.get(ident(1)) is None
    cache.put(ident(1), 1, 4, (), b"good")
    found = cache.get(ident(1))
    assert found is not None
    assert found.payload == b"good"


def test_directory_and_files_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "cache"
    directory.mkdir(parents=True, mode=0o755)
    cache = Cache.open(directory, limit_bytes=64 * MIB, free_floor_bytes=0)
    cache.put(ident(1), 1, 1, (), b"x")
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for path in directory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    cache.close()


def test_contents_survive_close_and_reopen(tmp_path: Path) -> None:
    for round_ in range(3):
        cache = Cache.open(tmp_path, limit_bytes=64 * MIB, free_floor_bytes=0)
        cache.put(ident(round_), 1, 1, (), b"x")
        assert all(cache.contains(ident(n)) for n in range(round_ + 1))
        cache.close()
    assert len(list(tmp_path.glob("v3/*.seg"))) == 1, "an unfinished segment is taken over, not left behind"


def test_closed_cache_opens_again_when_used(cache: Cache) -> None:
    cache.put(ident(1), 1, 1, (), b"x")
    cache.close()
    cache.close()
    assert cache.get(ident(1)) is not None


@pytest.mark.parametrize("size", [1000, 100_000, 3 * MIB])
def test_limit_holds_after_every_put(tmp_path: Path, size: int) -> None:
    limit = 16 * MIB
    cache = Cache.open(tmp_path, limit_bytes=limit, free_floor_bytes=0)
    payload = bytes(size)
    for number in range(3 * limit // size // (20 if size < 10_000 else 1)):
        cache.put(ident(number), 1, size, (), payload)
        if number % 16 == 0 or size > MIB:
            assert segment_bytes(cache) <= limit
    assert cache.stats().reserved_bytes <= limit
    assert directory_bytes(cache) <= limit + 2 * MIB, "the log of the index is cut when it is checkpointed"
    assert cache.get(ident(number)) is not None
    cache.close()


def test_payload_larger_than_the_limit_is_not_kept(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, limit_bytes=MIB, free_floor_bytes=0)
    cache.put(ident(1), 0, 2 * MIB, (), bytes(2 * MIB))
    assert cache.get(ident(1)) is None
    cache.close()


def test_limit_of_zero_keeps_nothing(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, limit_bytes=0, free_floor_bytes=0)
    cache.put(ident(1), 0, 1, (), b"x")
    assert cache.get(ident(1)) is None
    assert segment_bytes(cache) == 0
    cache.close()


def test_least_recently_used_segments_go_first(tmp_path: Path) -> None:
    limit = 16 * MIB  # segments of 1 MiB, which two of these payloads fill
    cache = Cache.open(tmp_path, limit_bytes=limit, free_floor_bytes=0)
    size = MIB // 2 - HEADER_SIZE
    for number in range(20):
        cache.put(ident(number), 1, size, (), bytes(size))
    for number in range(20, 40):
        assert cache.get(ident(0)) is not None, "what is read all the time stays"
        cache.put(ident(number), 1, size, (), bytes(size))
    assert cache.get(ident(0)) is not None
    assert cache.get(ident(1)) is not None, "its neighbour in the segment stays with it"
    assert cache.get(ident(2)) is None
    assert cache.get(ident(39)) is not None
    cache.close()


def test_lower_limit_is_enforced_when_opened(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path, limit_bytes=32 * MIB, free_floor_bytes=0)
    for number in range(30):
        cache.put(ident(number), 1, MIB, (), bytes(MIB))
    cache.close()
    cache = Cache.open(tmp_path, limit_bytes=4 * MIB, free_floor_bytes=0)
    assert segment_bytes(cache) <= 4 * MIB
    cache.close()


def test_free_floor_makes_segments_go_and_then_stops_puts(tmp_path: Path) -> None:
    total = 24 * MIB

    def free(folder: Path) -> int:
        return total - sum(path.stat().st_size for path in folder.glob("*.seg"))

    cache = Cache(tmp_path, limit_bytes=160 * MIB, free_floor_bytes=8 * MIB, free_bytes=free, pause_s=0)
    for number in range(40):
        cache.put(ident(number), 1, MIB, (), bytes(MIB))
        assert free(tmp_path / "v3") >= 8 * MIB
    assert cache.get(ident(39)) is not None
    total = 4 * MIB
    cache.put(ident(40), 1, MIB, (), bytes(MIB))
    assert cache.get(ident(40)) is None
    assert segment_bytes(cache) == 0
    total = 24 * MIB
    cache.put(ident(40), 1, MIB, (), bytes(MIB))
    assert cache.get(ident(40)) is not None
    cache.close()


def test_stats_count(cache: Cache) -> None:
    cache.put(ident(1), 1, 10, (), b"12345")
    cache.get(ident(1))
    cache.get(ident(2))
    stats = cache.stats()
    assert (stats.records, stats.stored_bytes, stats.segments) == (1, 5, 1)
    assert (stats.hits, stats.misses, stats.limit_bytes) == (1, 1, 64 * MIB)


def test_threads_share_a_cache(cache: Cache) -> None:
    wrong: list[int] = []

    def work(first: int) -> None:
        for number in range(first, first + 100):
            payload = ident(number) * 500
            cache.put(ident(number), 1, len(payload), (), payload)
            found = cache.get(ident(number))
            if found is None or found.payload != payload:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n * 50,)) for n in range(8)]  # ranges overlap
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def _fill(directory: Path, first: int, count: int, wrong: multiprocessing.queues.Queue[int]) -> None:
    cache = Cache.open(directory, limit_bytes=8 * MIB, free_floor_bytes=0)
    bad = 0
    for number in range(first, first + count):
        payload = ident(number) * 2000
        cache.put(ident(number), 1, len(payload), (), payload)
        for other in (number, number + 50, abs(number - 50)):
            found = cache.get(ident(other))
            bad += found is not None and found.payload != ident(other) * 2000
    cache.close()
    wrong.put(bad)


def test_processes_share_a_directory_and_its_limit(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    wrong = context.Queue()
    processes = [context.Process(target=_fill, args=(tmp_path, n * 100, 200, wrong)) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert [wrong.get() for _ in processes] == [0, 0]
    assert sum(path.stat().st_size for path in tmp_path.glob("v3/*.seg")) <= 8 * MIB
    cache = Cache.open(tmp_path, limit_bytes=8 * MIB, free_floor_bytes=0)
    assert sum(cache.contains(ident(number)) for number in range(300)) > 50
    cache.close()


def test_forked_child_uses_files_of_its_own(cache: Cache) -> None:
    cache.put(ident(1), 1, 3, (), b"abc")
    pid = os.fork()
    if pid == 0:
        found = cache.get(ident(1))
        cache.put(ident(2), 1, 5, (), b"child")
        ok = found is not None and found.payload == b"abc" and cache.get(ident(2)) is not None
        os._exit(0 if ok else 1)
    assert os.waitpid(pid, 0)[1] == 0
    cache.put(ident(3), 1, 6, (), b"parent")
    for number, payload in ((1, b"abc"), (2, b"child"), (3, b"parent")):
        found = cache.get(ident(number))
        assert found is not None
        assert found.payload == payload
