"""Cuts at the edges of large tensors, content-defined in between."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shardfs.chunking.contentdefined import default_cutter
from shardfs.chunking.cutter import Cutter

LARGE_TENSOR = 16 * 1024
"""Bytes from which a tensor gets chunks of its own. Smaller ones (biases, norms) share the chunk
of the gap they lie in: a chunk costs about 200 bytes of tables whatever it holds, and a codec of
floats saves 17 % and more of a tensor."""

TENSOR_ALIGNMENT = 8
"""Chunk lengths inside tensors are multiples of this, so that every element of up to 8 bytes is
whole in one chunk and a codec never sees half a number."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch `[start, end)` of a file that is cut by itself."""

    start: int
    end: int
    is_tensor: bool


def segments(size: int, extents: Iterable[tuple[int, int]] = (), *, large: int = LARGE_TENSOR) -> Iterator[Segment]:
    """Split a file into large tensors and the gaps around them.

    Args:
        size: of the file in bytes.
        extents: `(start, end)` of tensors in ascending order. Those that are shorter than `large`
            bytes, overlap an earlier one or leave the file are ignored, so that a wrong layout
            costs deduplication and nothing else.
        large: in bytes.

    Returns:
        Segments that cover `[0, size)` exactly, in order and without empty ones.
    """
    position = 0
    for start, end in extents:
        if start < position or end > size or end - start < large:
            continue
        if start > position:
            yield Segment(position, start, is_tensor=False)
        yield Segment(start, end, is_tensor=True)
        position = end
    if position < size:
        yield Segment(position, size, is_tensor=False)


class Cursor:
    """Walks one file from front to back and says where its chunks end.

    It holds no bytes. The caller keeps some window of the file in memory and asks::

        while not cursor.finished:
            length = cursor.cut(window)   # window[0] is the byte at cursor.offset

    A window must hold at least `cursor.reach` bytes; more are ignored. The cuts therefore depend on
    the content and the extents alone, not on how the bytes arrive.
    """

    def __init__(
        self,
        size: int,
        extents: Iterable[tuple[int, int]] = (),
        *,
        inside: Cutter | None = None,
        between: Cutter | None = None,
    ) -> None:
        """Start at the front of a file.

        Args:
            size: of the file in bytes.
            extents: of its tensors, as in `segments`.
            inside: cuts large tensors; by default content-defined at multiples of 8 bytes.
            between: cuts all else; by default content-defined at any byte.
        """
        self.offset = 0
        self._size = size
        self._segments = segments(size, extents)
        self._inside = inside or default_cutter(TENSOR_ALIGNMENT)
        self._between = between or default_cutter()
        self._lengths: deque[int] = deque()  # inherited, of the chunks that come next
        self._zero_cuts: dict[tuple[bool, int], int] = {}
        self._segment = next(self._segments, Segment(0, 0, is_tensor=False))

    @property
    def finished(self) -> bool:
        """Whether the whole file has been cut."""
        return self.offset >= self._size

    @property
    def max_size(self) -> int:
        """The longest chunk this cursor makes, in bytes."""
        return max(self._inside.max_size, self._between.max_size)

    @property
    def reach(self) -> int:
        """How many bytes from `offset` on the next cut depends on; 0 when finished."""
        return self._lengths[0] if self._lengths else min(self._cutter.max_size, self._segment.end - self.offset)

    @property
    def segment(self) -> Segment:
        """The segment that `offset` lies in; the last one when finished."""
        return self._segment

    @property
    def is_inherited(self) -> bool:
        """Whether the next cut is one of another version."""
        return bool(self._lengths)

    def inherit(self, lengths: Iterable[int]) -> None:
        """Give the next chunks of this segment the lengths that they have in another version, as far as they fit.

        Chunks at the same places can be stored as differences. Without lengths the content decides again.
        """
        room = self._segment.end - self.offset
        self._lengths.clear()
        for length in lengths:
            room -= length
            if room < 0 or not 0 < length <= self.max_size:
                break
            self._lengths.append(length)

    @property
    def _cutter(self) -> Cutter:
        return self._inside if self._segment.is_tensor else self._between

    def cut(self, window: memoryview) -> int:
        """Return the length in bytes of the chunk at `offset`, and move behind it.

        Raises:
            ValueError: `window` holds fewer than `reach` bytes, or the file is finished.
        """
        reach = self.reach
        if not reach or len(window) < reach:
            raise ValueError(f"a cut at {self.offset} needs {reach} bytes, got {len(window)}")
        return self._advance(reach if self._lengths else self._cutter.cut(window[:reach]))

    def cut_zeros(self) -> int:
        """Do as `cut` for a window of zeros, without the caller having to have one.

        Holes of sparse files pass through here at no cost per byte.
        """
        reach = self.reach
        if self._lengths:
            return self._advance(reach)
        key = (self._segment.is_tensor, reach)
        if key not in self._zero_cuts:
            if not reach:
                raise ValueError("the file is finished")
            self._zero_cuts[key] = self._cutter.cut(memoryview(bytes(reach)))
        return self._advance(self._zero_cuts[key])

    def skip(self, length: int) -> None:
        """Move over a chunk of `length` bytes that is known to end where a cut would be."""
        if self._lengths and self._lengths[0] != length:
            raise ValueError(f"the cut at {self.offset} is {self._lengths[0]} bytes on, not {length}")
        self._advance(length)

    def _advance(self, length: int) -> int:
        self.offset += length
        if self._lengths:
            self._lengths.popleft()
        if self.offset >= self._segment.end:
            self._segment = next(self._segments, self._segment)
        return length
