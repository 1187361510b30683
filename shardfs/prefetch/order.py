"""The order in which a file was read, and following it. Spec: docs/design/format/order.md."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

from shardfs.errors import MalformedError
from shardfs.prefetch.cursors import NEAR, TOLERANCE, Leg
from shardfs.prefetch.extents import Extents, Spot
from shardfs.prefetch.want import Want

MAX_RANGES: Final = 4096
MAX_SIZE: Final = 2 << 20  # bytes of a record
_VERSION: Final = 1
_ENOUGH: Final = 3  # reads in the recorded order before it is followed
_TOO_MANY: Final = 4  # reads in a row that are not in it before it is forgotten
_FIRST_WINDOW: Final = 8 << 20  # bytes; the order is known, so that less caution is needed than with a guess


class Range(NamedTuple):
    """Bytes [start, end) of a file that were read in a row, and where in tensors the first and the last of them are."""

    start: int
    end: int
    first: Spot | None = None
    last: Spot | None = None


class Order(NamedTuple):
    """What was read of a file, in the order of the first touch.

    Attributes:
        content: id of the content: of the manifest, or of the only chunk.
        size: bytes of the file.
        ranges: disjoint.
    """

    content: bytes
    size: int
    ranges: tuple[Range, ...]

    @property
    def covered(self) -> int:
        """Bytes that were read."""
        return sum(r.end - r.start for r in self.ranges)

    def to_bytes(self) -> bytes:
        """The record."""
        rows = [[r.start, r.end, *(r.first or ("", 0)), *(r.last or ("", 0))] for r in self.ranges]
        value = {"type": "order", "version": _VERSION, "content": self.content.hex(), "size": self.size, "ranges": rows}
        return json.dumps(value, separators=(",", ":")).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Order:
        """The order in a record.

        Raises:
            MalformedError: it is none of this version.
        """
        try:
            return _order(json.loads(data))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            msg = "not a record of an order of version 1"
            raise MalformedError(msg) from error

    def in_file(self, content: bytes, size: int, extents: Extents | None) -> list[tuple[int, int]]:
        """The ranges as they lie in another content of the same path: where its tensors are, else at their offsets."""
        if content == self.content or extents is None:
            return _disjoint((r.start, min(r.end, size)) for r in self.ranges)
        return _disjoint(
            (_moved(r.start, r.first, extents), min(_moved(r.end - 1, r.last, extents) + 1, size)) for r in self.ranges
        )


def order_of(legs: Sequence[Leg], content: bytes, size: int, extents: Extents | None) -> Order | None:
    """The order of what was read; None when most bytes were read at random, or there are too many legs."""
    ranges = _disjoint((leg.start, leg.end) for leg in legs)
    in_a_row = sum(leg.end - leg.start for leg in legs if leg.goes_on)
    if len(ranges) > MAX_RANGES or 2 * in_a_row < sum(end - start for start, end in ranges):
        return None
    spot = extents.spot if extents is not None else lambda _offset: None
    return Order(content, size, tuple(Range(start, end, spot(start), spot(end - 1)) for start, end in ranges))


class Follower:
    """Follows one reader, or several that take turns, along a recorded order. Not safe to share between threads.

    Attributes:
        asked_bytes: that were wanted in the order.
        used_bytes: of those, that were read later.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        self._ranges = ranges
        self._flat = [0, *accumulate(end - start for start, end in ranges)]  # where each lies when they are joined
        self._sorted = sorted((start, number) for number, (start, _) in enumerate(ranges))
        self._position = self._near = self._far = 0
        self._window = _FIRST_WINDOW
        self._right = self._wrong = 0
        self.is_over = not ranges
        self.asked_bytes = self.used_bytes = 0

    def read(self, offset: int, stop: int, limit: int) -> Want | None:
        """Note a read; what will be wanted next, None when the read says nothing about that or nothing is due."""
        flat = self._locate(offset)
        ahead = max(self._near, self._far) + TOLERANCE
        if flat is None or not -NEAR <= flat - self._position <= max(NEAR, ahead - self._position):
            self._wrong += 1
            self.is_over = self._wrong >= _TOO_MANY
            return None
        self._right += 1
        self._wrong = 0
        end = min(flat + stop - offset, self._flat[-1])
        self.used_bytes += max(0, min(end, max(self._near, self._far)) - max(flat, self._position))
        self._position = max(self._position, end)
        return self._ahead(limit) if self._right >= _ENOUGH else None

    @property
    def follows(self) -> bool:
        """Whether the last read was where the order says."""
        return self._right >= _ENOUGH and not self._wrong

    def _ahead(self, limit: int) -> Want | None:
        position = self._position
        window = min(self._window, limit)
        if self._near - position >= min(NEAR, window) // 2 and (limit <= NEAR or self._far - position >= window // 2):
            return None
        self._window = min(2 * window, limit)
        near = max(self._near, position), position + min(window, NEAR)
        far = max(self._far, near[1]), position + window
        known = max(self._near, self._far, position)
        self._near, self._far = max(near), max(self._far, far[1])
        self.asked_bytes += max(0, min(max(self._near, self._far), self._flat[-1]) - known)
        wanted = Want(self, near[0] - position, self._bytes(*near), self._bytes(*far))
        return wanted if wanted.near or wanted.far else None

    def _locate(self, offset: int) -> int | None:
        """Where a byte of the file is in the order."""
        place = bisect_right(self._sorted, (offset, len(self._ranges))) - 1
        if place < 0:
            return None
        start, number = self._sorted[place]
        return self._flat[number] + offset - start if offset < self._ranges[number][1] else None

    def _bytes(self, begin: int, end: int) -> tuple[tuple[int, int], ...]:
        """The ranges of the file between two positions of the order."""
        found = []
        number = bisect_right(self._flat, begin) - 1
        while begin < end and number < len(self._ranges):
            start = self._ranges[number][0] + begin - self._flat[number]
            stop = min(end, self._flat[number + 1])
            found.append((start, start + stop - begin))
            begin, number = stop, number + 1
        return tuple(found)


def _disjoint(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges without the bytes that an earlier one has, joined where one ends and the next begins."""
    kept: list[tuple[int, int]] = []
    taken: list[tuple[int, int]] = []  # ascending
    for start, end in ranges:
        begin = start
        for a, b in taken[max(0, bisect_right(taken, (start,)) - 1) :]:
            if a >= end:
                break
            if b > begin:
                _join(kept, begin, min(a, end))
                begin = max(begin, b)
        _join(kept, begin, end)
        if start < end:
            _add(taken, start, end)
    return kept


def _join(ranges: list[tuple[int, int]], start: int, end: int) -> None:
    if start < end:
        if ranges and ranges[-1][1] == start:
            start = ranges.pop()[0]
        ranges.append((start, end))


def _add(taken: list[tuple[int, int]], start: int, end: int) -> None:
    """Unite a range with those that it touches."""
    low = max(0, bisect_right(taken, (start,)) - 1)
    if low < len(taken) and taken[low][1] < start:
        low += 1
    high = low
    while high < len(taken) and taken[high][0] <= end:
        start, end = min(start, taken[high][0]), max(end, taken[high][1])
        high += 1
    taken[low:high] = [(start, end)]


def _moved(offset: int, spot: Spot | None, extents: Extents) -> int:
    found = None if spot is None else extents.offset(spot)
    return offset if found is None else found


def _order(value: Any) -> Order:
    if (value["type"], value["version"]) != ("order", _VERSION) or len(value["ranges"]) > MAX_RANGES:
        raise ValueError
    return Order(bytes.fromhex(value["content"]), _count(value["size"]), tuple(map(_range, value["ranges"])))


def _range(row: Any) -> Range:
    start, end, first, first_at, last, last_at = row
    if not 0 <= _count(start) < _count(end):
        raise ValueError
    return Range(start, end, _spot(first, first_at), _spot(last, last_at))


def _spot(name: Any, at: Any) -> Spot | None:
    return Spot(str(name), _count(at)) if name else None


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError
    return value
