"""Blocks of packs on a disk that may lose them, asked for once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardfs.errors import RemoteProtocolError, RemoteUnavailableError
from shardfs.formats.ids import PackId
from shardfs.formats.ref import PackSize
from shardfs.server import peer_blocks
from shardfs.server.peer_blocks import Blocks
from shardfs.store.cache import Cache
from tests.stores import noise

BLOCK = 1000
DATA = noise(7, 25 * BLOCK + 123)
PACK = PackSize(PackId(blake3(DATA).digest()), len(DATA))


class Source:
    """Where blocks come from; counts what it is asked for."""

    def __init__(self) -> None:
        self.data = DATA
        self.asked: list[tuple[int, int]] = []
        self.down = False

    def __call__(self, offset: int, length: int) -> bytes:
        self.asked.append((offset, length))
        if self.down:
            msg = "down"
            raise RemoteUnavailableError(msg)
        return self.data[offset : offset + length]


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_blocks, "BLOCK", BLOCK)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    cache = Cache.open(tmp_path / "cache", limit_bytes=16 << 20, free_floor_bytes=0)
    yield cache
    cache.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ranges=st.lists(st.tuples(st.integers(0, len(DATA) - 1), st.integers(1, 12 * BLOCK)), min_size=1, max_size=12))
def test_any_ranges_are_right_and_come_once(
    tmp_path_factory: pytest.TempPathFactory, ranges: list[tuple[int, int]]
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"), limit_bytes=16 << 20, free_floor_bytes=0)
    blocks, source = Blocks(cache), Source()
    for offset, length in ranges:
        size = min(length, len(DATA) - offset)
        assert blocks.read(PACK, offset, size, source) == DATA[offset : offset + size]
    touched = [
        number for offset, size in source.asked for number in range(offset // BLOCK, -(-(offset + size) // BLOCK))
    ]
    assert len(touched) == len(set(touched))
    cache.close()


def test_many_ask_and_each_block_comes_once(cache: Cache) -> None:
    blocks, source, together = Blocks(cache), Source(), threading.Barrier(16)

    def read(first: int) -> None:
        together.wait()
        for i in range(20):
            offset = (first + i) % 20 * BLOCK + 17
            assert blocks.read(PACK, offset, 3 * BLOCK, source) == DATA[offset : offset + 3 * BLOCK]

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(16)))
    assert sum(size for _, size in source.asked) == 23 * BLOCK
    assert blocks.fetched == 23 * BLOCK


def test_they_outlive_the_process(cache: Cache) -> None:
    Blocks(cache).read(PACK, 0, len(DATA), Source())
    source = Source()
    again = Blocks(cache)
    assert again.read(PACK, 0, len(DATA), source) == DATA
    assert not source.asked
    assert again.hits == len(DATA)


def test_zeros_of_a_power_cut_are_asked_for_again(cache: Cache, tmp_path: Path) -> None:
    Blocks(cache).read(PACK, 0, len(DATA), Source())
    for segment in (tmp_path / "cache").rglob("*.seg"):
        found = segment.read_bytes().find(DATA[2 * BLOCK : 3 * BLOCK])
        if found >= 0:
            with segment.open("r+b") as file:  # in place: a thread may be comparing the whole pack with its id
                file.seek(found + 100)
                file.write(bytes(500))
    source = Source()
    assert Blocks(cache).read(PACK, 0, len(DATA), source) == DATA
    assert source.asked == [(2 * BLOCK, BLOCK)]


def test_a_cache_that_keeps_nothing_only_costs_time(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache", limit_bytes=16 << 20, free_floor_bytes=1 << 60)
    blocks, source = Blocks(cache), Source()
    for _ in range(2):
        assert blocks.read(PACK, 10, 5000, source) == DATA[10:5010]
    assert len(source.asked) == 2
    cache.close()


def test_failures_are_told_to_all_and_not_kept(cache: Cache) -> None:
    blocks, source = Blocks(cache), Source()
    source.down = True
    with pytest.raises(RemoteUnavailableError):
        blocks.read(PACK, 0, 100, source)
    source.down, source.data = False, DATA[:50]
    with pytest.raises(RemoteProtocolError, match="50 bytes"):
        blocks.read(PACK, 0, 100, source)
    source.data = DATA
    assert blocks.read(PACK, 0, 100, source) == DATA[:100]


def test_doubted_bytes_are_asked_for_once_more_however_many_doubt(cache: Cache) -> None:
    blocks, source = Blocks(cache), Source()
    source.data = DATA[:500] + b"wrong" + DATA[505:]
    assert blocks.read(PACK, 0, BLOCK, source) != DATA[:BLOCK]
    source.data = DATA
    assert blocks.read(PACK, 0, BLOCK, source) != DATA[:BLOCK]  # nobody has said so yet
    for _ in range(3):
        assert blocks.read(PACK, 0, BLOCK, source, fresh=True) == DATA[:BLOCK]
    assert len(source.asked) == 2


def test_doubted_bytes_of_a_pack_that_is_right_are_given_while_there_are_no_others(cache: Cache) -> None:
    blocks, source = Blocks(cache), Source()
    blocks.read(PACK, 0, len(DATA), source)
    source.down = True
    for _ in range(2):
        assert blocks.read(PACK, 10, 2 * BLOCK, source, fresh=True) == DATA[10 : 10 + 2 * BLOCK]
    assert len(source.asked) == 5  # a second has not passed
    assert blocks.read(PACK, 0, len(DATA), source) == DATA


@pytest.mark.parametrize("is_whole", [True, False])
def test_doubted_bytes_that_may_be_wrong_are_never_given_again(cache: Cache, is_whole: bool) -> None:
    blocks, source = Blocks(cache), Source()
    source.data = DATA[:500] + b"wrong" + DATA[505:]
    if is_whole:
        other = PackSize(PackId(bytes(32)), 5 * BLOCK)
        blocks.read(other, 0, 4 * BLOCK, source)
        Blocks(cache).read(other, 4 * BLOCK, BLOCK, source)  # two processes: neither has seen all of it
    else:
        other = PackSize(PackId(bytes(32)), len(DATA))
        blocks.read(other, 0, 4 * BLOCK, source)
    source.down = True
    assert blocks.read(other, 0, BLOCK, source)  # nobody has said so yet
    for is_doubted in (True, False):
        with pytest.raises(RemoteUnavailableError):
            blocks.read(other, 0, BLOCK, source, fresh=is_doubted)


def test_a_whole_pack_that_is_wrong_is_forgotten(cache: Cache) -> None:
    blocks, source = Blocks(cache), Source()
    blocks.read(PACK, 0, len(DATA), source)
    assert blocks.check(PACK)
    source.data = DATA[:500] + b"wrong" + DATA[505:]
    other = PackSize(PackId(bytes(32)), len(DATA))
    blocks.read(other, 0, 10 * BLOCK, source)
    assert blocks.check(other) is None  # not all of it is here: nobody knows
    before = len(source.asked)
    blocks.read(other, 0, len(DATA), source)  # the last block of it begins the comparison
    until = time.monotonic() + 20
    while len(source.asked) == before + 2:
        blocks.read(other, 0, BLOCK, source)
        assert time.monotonic() < until
