"""Blocks of packs of another place, kept on this disk, each asked for once however many want it.

A block carries its own digest, because the disk may lose what was not synced. That blocks are what the pack has there
is known only when all of it has come: then it is compared with its id, and forgotten if it is not that.

What somebody found wrong is asked for anew. While that fails it is given only if all of the pack is here and, compared
once more, is what its id says: else it may be what the other place sent wrong.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from itertools import pairwise
from typing import Final

from blake3 import blake3

from shardfs import threads
from shardfs.errors import RemoteProtocolError, ShardfsError
from shardfs.formats.ids import PackId
from shardfs.formats.ref import PackSize
from shardfs.store.cache import Cache

_log = logging.getLogger(__name__)

BLOCK: Final = 512 << 10  # bytes; twice the least that a client asks for at random, and 8 ms at 1 Gbit/s come along
_RUN: Final = 8  # blocks that are asked for in one request: others wait for the last of them
_AGAIN_S: Final = 1.0  # in which a block is asked for anew once, however many clients say that it is wrong
_MAX_NOTED: Final = 10_000  # packs and blocks that are remembered
_DIGEST: Final = 32  # bytes
_CODEC: Final = 0  # of the records: as they are

Read = Callable[[int, int], bytes]
"""Exactly so many bytes of a pack from an offset, from where they come from; raises ShardfsError."""


class _Flight:
    """A block that is on its way."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.data = b""
        self.error: ShardfsError | None = None


class Blocks:
    """Safe to share between threads; the cache stays the caller's, and may be that of several processes.

    Attributes:
        hits: bytes that were given from this disk.
        fetched: bytes that were asked for.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._lock = threading.Lock()
        self._flights: dict[tuple[PackId, int], _Flight] = {}
        self._renewed: OrderedDict[tuple[PackId, int], float] = OrderedDict()
        self._came: OrderedDict[PackId, set[int]] = OrderedDict()  # blocks that this process fetched
        self.hits = self.fetched = 0

    def read(self, pack: PackSize, offset: int, length: int, source: Read, *, fresh: bool = False) -> bytes:
        """Exactly `length` bytes of a pack from `offset`.

        Args:
            pack: the pack; the range must be inside it.
            offset: in bytes.
            length: in bytes, at least 1.
            source: asks for what is not here.
            fresh: somebody found these bytes wrong: ask for them again, and forget them if that fails and the pack is
                not here as a whole and right.

        Raises:
            ShardfsError: `source` failed, here or for another that asked for the same block.
        """
        numbers = range(offset // BLOCK, (offset + length - 1) // BLOCK + 1)
        flights, mine = self._board(pack.id, numbers)
        try:
            self._land(pack, mine, source, self._doubt(pack.id, mine) if fresh else frozenset())
        finally:
            self._leave(pack.id, mine)
        blocks = b"".join(_outcome(flight) for flight in flights)
        begin = offset - numbers[0] * BLOCK
        return blocks if len(blocks) == length else blocks[begin : begin + length]

    def _board(self, pack: PackId, numbers: Sequence[int]) -> tuple[list[_Flight], dict[int, _Flight]]:
        """The flights of some blocks, and those of them that the caller has to bring."""
        flights: list[_Flight] = []
        mine: dict[int, _Flight] = {}
        with self._lock:
            for number in numbers:
                flight = self._flights.get((pack, number))
                if flight is None:
                    flight = self._flights[pack, number] = mine[number] = _Flight()
                flights.append(flight)
        return flights, mine

    def _land(self, pack: PackSize, mine: dict[int, _Flight], source: Read, doubted: Set[int]) -> None:
        missing = [number for number in mine if number in doubted or not self._give(pack, number, mine[number])]
        for run in _runs(missing):
            begin, end = run[0] * BLOCK, min((run[-1] + 1) * BLOCK, pack.size)
            try:
                data = source(begin, end - begin)
                if len(data) != end - begin:
                    raise _wrong_length(pack, begin, end, len(data))
            except ShardfsError as error:
                self._do_without(pack, {number: mine[number] for number in run}, doubted, error)
                continue
            self.fetched += len(data)
            for number in run:
                mine[number].data = data[number * BLOCK - begin : (number + 1) * BLOCK - begin]
                mine[number].done.set()
            # Who comes until the disk has them finds the flights, which have landed.
            for number in run:
                if number in doubted:
                    self._cache.discard(_ident(pack.id, number))
                self._put(pack, number, mine[number].data)
            self._note(pack, run)

    def _give(self, pack: PackSize, number: int, flight: _Flight) -> bool:
        """Land a flight with what is on the disk; whether that is there."""
        found = self._get(pack, number)
        if found is None:
            return False
        self.hits += len(found)
        flight.data = found
        flight.done.set()
        return True

    def _do_without(self, pack: PackSize, flights: dict[int, _Flight], doubted: Set[int], error: ShardfsError) -> None:
        """Land flights that the other place has failed."""
        is_right = not doubted.isdisjoint(flights) and self.check(pack)
        for number, flight in flights.items():
            if is_right and self._give(pack, number, flight):
                continue
            if number in doubted:
                self._cache.discard(_ident(pack.id, number))
            flight.error = error
            flight.done.set()

    def _leave(self, pack: PackId, mine: dict[int, _Flight]) -> None:
        with self._lock:
            for number in mine:
                del self._flights[pack, number]
        for flight in mine.values():
            if not flight.done.is_set():
                flight.error = RemoteProtocolError("the request for it was interrupted")
                flight.done.set()

    # On the disk

    def _get(self, pack: PackSize, number: int) -> bytes | None:
        found = self._cache.get(_ident(pack.id, number))
        if found is None:
            return None
        data, digest = found.payload[:-_DIGEST], found.payload[-_DIGEST:]
        if len(data) == min(BLOCK, pack.size - number * BLOCK) and blake3(data).digest() == digest:
            return data
        self._cache.discard(_ident(pack.id, number))
        return None

    def _put(self, pack: PackSize, number: int, data: bytes) -> None:
        self._cache.put(_ident(pack.id, number), _CODEC, len(data), (), data + blake3(data).digest())

    def _doubt(self, pack: PackId, numbers: Iterable[int]) -> frozenset[int]:
        """Those of some blocks that are to be asked for anew now."""
        now, doubted = time.monotonic(), set()
        with self._lock:
            for key in ((pack, number) for number in numbers):
                if now - self._renewed.get(key, float("-inf")) >= _AGAIN_S:
                    doubted.add(key[1])
                    self._renewed[key] = now
                    self._renewed.move_to_end(key)
            while len(self._renewed) > _MAX_NOTED:
                self._renewed.popitem(last=False)
        return frozenset(doubted)

    # Whole packs

    def _note(self, pack: PackSize, run: Sequence[int]) -> None:
        """Compare a pack with its id when all of its blocks have come."""
        with self._lock:
            came = self._came.setdefault(pack.id, set())
            came.update(run)
            is_whole = len(came) * BLOCK >= pack.size
            if is_whole or len(self._came) > _MAX_NOTED:
                self._came.popitem(last=False) if not is_whole else self._came.pop(pack.id)
        if is_whole:
            threads.start(lambda: self.check(pack), "check-pack")

    def check(self, pack: PackSize) -> bool | None:
        """Whether a pack is right; one that is not what its id says is forgotten. None: not all of it is here."""
        whole, numbers = blake3(), range((pack.size + BLOCK - 1) // BLOCK)
        for number in numbers:
            data = self._get(pack, number)
            if data is None:
                return None
            whole.update(data)
        if whole.digest() == pack.id:
            return True
        _log.warning("pack %s came with wrong bytes and is asked for again", pack.id.hex()[:12])
        for number in numbers:
            self._cache.discard(_ident(pack.id, number))
        return False


def _ident(pack: PackId, number: int) -> bytes:
    return blake3(b"block of a pack" + pack + number.to_bytes(8, "big")).digest()


def _runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Numbers in a row, at most `_RUN` of them."""
    run = list(numbers[:1])
    for before, number in pairwise(numbers):
        if number != before + 1 or len(run) == _RUN:
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _outcome(flight: _Flight) -> bytes:
    flight.done.wait()
    if flight.error is not None:
        raise flight.error
    return flight.data


def _wrong_length(pack: PackSize, begin: int, end: int, got: int) -> RemoteProtocolError:
    return RemoteProtocolError(f"{got} bytes of pack {pack.id.hex()[:12]} instead of {end - begin} from {begin}")
