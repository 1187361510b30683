"""Programs that map a file and touch the beginning of each tensor, one after the other, before they read any of them.

A kernel asks for some 100 KB around each page that is touched. If nothing is fetched ahead, each of them costs a round
trip to a remote.
"""

from __future__ import annotations

from typing import Final

from shardfs.prefetch.extents import Extents
from shardfs.prefetch.want import Want

_ENOUGH: Final = 3  # tensors in a row before the walk is followed
_TOUCH: Final = (
    2 << 20
)  # bytes of chunks that one touch takes, about: the end of one tensor and the beginning of the next
_NEAR: Final = 2  # beginnings that are decoded ahead


class Walk:
    """Follows one walk over the tensors of a file. Not safe to share between threads."""

    def __init__(self) -> None:
        self._next = -1  # number of the tensor that is expected
        self._steps = 0  # tensors touched in a row
        self._near = self._far = 0  # tensors whose beginnings were asked for

    def read(self, offset: int, stop: int, limit: int, extents: Extents) -> Want | None:
        """Note a read of [offset, stop) that did not go on where another ended.

        Args:
            offset: of the read.
            stop: its end.
            limit: most bytes ahead.
            extents: where tensors are.

        Returns:
            The beginnings of the next tensors: twice as many as were touched in a row; None if this is no walk.
        """
        touched = extents.beginning_in(offset, stop)
        if not touched or touched[-1] + 1 == self._next:
            return None
        if self._next not in touched:
            self._steps = self._near = self._far = 0
        self._next = touched[-1] + 1
        self._steps += 1
        if self._steps < _ENOUGH:
            return None
        start = extents.start(touched[-1])
        before, after = start - offset, stop - start
        last = min(self._next + max(_NEAR, min(2 * self._steps, limit // _TOUCH)), len(extents))
        near = range(max(self._near, self._next), min(self._next + _NEAR, last))
        far = range(max(self._far, near.stop), last)
        self._near, self._far = max(self._near, near.stop), max(self._far, last)

        def around(numbers: range) -> tuple[tuple[int, int], ...]:
            starts = map(extents.start, numbers)
            return tuple((max(0, start - before), start + after) for start in starts)

        wanted = Want(self, 0, around(near), around(far))
        return wanted if wanted.near or wanted.far else None
