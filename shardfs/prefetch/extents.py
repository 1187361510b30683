"""Where the tensors of one file begin and end."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Final, NamedTuple

from shardfs.tensors import Stretch

MAX_STRETCHES: Final = 20_000  # about 3 MB; of files with more only the first ones are known
_PAGE: Final = 4096  # programs that map a file ask for whole pages
_AROUND: Final = 512 << 10  # bytes that a kernel may read before the page of a map that is touched: half of a request
_BEHIND: Final = 1 << 20  # bytes that it may read behind what is wanted: twice what it asks for at once


class Spot(NamedTuple):
    """A place in a tensor, which another version of the file may have somewhere else."""

    name: str
    at: int  # bytes from the beginning of the tensor


class Extents:
    """The stretches of a file, ascending and disjoint."""

    def __init__(self, stretches: Sequence[Stretch]) -> None:
        known = stretches[:MAX_STRETCHES]
        self._names = tuple(stretch.name for stretch in known)
        self._starts = array("Q", (stretch.start for stretch in known))
        self._ends = array("Q", (stretch.end for stretch in known))
        self._by_name: dict[str, int] | None = None

    def __len__(self) -> int:
        return len(self._starts)

    def start(self, number: int) -> int:
        """Where a tensor begins."""
        return self._starts[number]

    def beginning_in(self, offset: int, stop: int) -> range:
        """The numbers of the tensors that begin in [offset, stop)."""
        return range(bisect_left(self._starts, offset), bisect_left(self._starts, stop))

    def bound(self, begun: int, offset: int) -> int | None:
        """Where a reader that began at `begun` and has come to `offset` may stop: the end of the tensor it is in.

        Where it has just come into a tensor that is its beginning: a kernel reads on behind what a program wants. None
        when it went on from one tensor to the next twice, or from the front of the file into the second one: it reads
        the file, not a tensor.
        """
        number = bisect_right(self._ends, offset)
        first = bisect_right(self._ends, begun + _AROUND) if begun else 0
        wanted = bisect_right(self._ends, max(begun, offset - _BEHIND))
        if number == len(self._ends) or wanted - first > bool(begun):
            return None
        start = self._starts[number]
        has_just_come = begun < start and offset - start < min(_BEHIND, start - begun)
        return start if has_just_come else self._ends[number]

    def begins(self, offset: int, stop: int) -> bool:
        """Whether a read of [offset, stop) is the first of a tensor that goes on behind it."""
        number = bisect_left(self._starts, offset)
        if number == len(self._starts) or self._starts[number] - offset >= _PAGE:
            return False
        return self._starts[number] < stop < self._ends[number]

    def spot(self, offset: int) -> Spot | None:
        """The place in a tensor that lies at `offset`; None between tensors."""
        number = bisect_right(self._starts, offset) - 1
        if number < 0 or offset > self._ends[number]:
            return None
        return Spot(self._names[number], offset - self._starts[number])

    def offset(self, spot: Spot) -> int | None:
        """Where a place is in this file; None when it has no such tensor, or a shorter one."""
        if self._by_name is None:
            self._by_name = {name: number for number, name in enumerate(self._names)}
        number = self._by_name.get(spot.name)
        if number is None or self._starts[number] + spot.at > self._ends[number]:
            return None
        return self._starts[number] + spot.at
