"""Readers of one file, told apart by where they read, and what each of them will want next.

A kernel sends the requests of all programs and threads as one stream, those of one reader slightly out of order. So a
reader is a run of bytes that grows at its end, not a descriptor and not a thread.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from shardfs.prefetch.extents import Extents

TOLERANCE: Final = 512 << 10  # bytes by which requests of one reader may be out of order
FIRST_WINDOW: Final = 1 << 20  # bytes loaded ahead of a reader that has read on for the first time
NEAR: Final = 4 << 20  # bytes decoded ahead of a reader: two cores decode two chunks while one is copied
MAX_CURSORS: Final = 8  # readers of one file that are told apart at the same time
MAX_RUNS: Final = 4096  # runs that are remembered; who makes more reads at random


class Run:
    """Bytes [start, end) of a file that were read in a row.

    Attributes:
        start: in bytes.
        end: in bytes.
        window: bytes to have ahead of the end.
        near: how far the file was asked to be decoded for this reader.
        far: how far it was asked to be brought from a remote.
        goes_on: whether it has read on from where it was.
    """

    __slots__ = ("end", "far", "goes_on", "near", "start", "window")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.window = FIRST_WINDOW
        self.near = self.far = 0
        self.goes_on = False


class Want(NamedTuple):
    """What a reader will want next; either range may be empty.

    Attributes:
        reader: whose end the bytes are ahead of.
        distance: bytes between that end and the first range.
        near: ranges to decode, in the order in which they will be wanted.
        far: ranges behind those, to bring from a remote.
    """

    reader: object
    distance: int
    near: tuple[tuple[int, int], ...]
    far: tuple[tuple[int, int], ...]


class Cursors:
    """The readers of one file. Not safe to share between threads.

    Attributes:
        runs: what was read, in the order of the first touch; None when that is no order.
        extents: where tensors are, once that is known.
        dropped: the reader that the last call of `read` gave up for another one, if any.
    """

    def __init__(self, size: int) -> None:
        self.runs: list[Run] | None = []
        self.extents: Extents | None = None
        self.dropped: Run | None = None
        self._size = size
        self._active: list[Run] = []  # the one that read last at the end

    def read(self, offset: int, stop: int, limit: int) -> Want | None:
        """Note a read of [offset, stop); what that reader will want, at most `limit` bytes ahead."""
        self.dropped = None
        run = self._run(offset, stop)
        if run is None or not run.goes_on:
            return None
        return self._ahead(run, limit)

    def read_all(self, limit: int) -> Want | None:
        """The whole file will be read from its beginning on."""
        run = self._new(0, 0)
        run.goes_on = True
        run.window = limit
        return self._ahead(run, limit)

    def _run(self, offset: int, stop: int) -> Run | None:
        """The run that a read belongs to; None when it did not bring it further."""
        active = self._active
        for place in range(len(active) - 1, -1, -1):
            run = active[place]
            gap = offset - run.end
            if -TOLERANCE <= gap <= TOLERANCE:
                if place != len(active) - 1:
                    active.append(active.pop(place))
                run.start = min(run.start, offset)
                if stop <= run.end:
                    return None
                # A read at random may come near; hardly ever does one begin exactly where another ended.
                run.goes_on = run.goes_on or not gap
                run.end = stop
                return run
        run = self._new(offset, stop)
        run.goes_on = self.extents is not None and self.extents.begins(offset, stop)
        return run

    def _new(self, offset: int, stop: int) -> Run:
        run = Run(offset, stop)
        if len(self._active) == MAX_CURSORS:
            self.dropped = self._active.pop(0)
        self._active.append(run)
        if self.runs is not None:
            self.runs.append(run)
            if len(self.runs) > MAX_RUNS:
                self.runs = None
        return run

    def _ahead(self, run: Run, limit: int) -> Want | None:
        end = run.end
        near = min(NEAR, run.window, limit)
        if run.near - end >= near // 2 and (limit <= NEAR or run.far - end >= run.window // 2):
            return None
        if run.near:
            run.window = 2 * run.window
        bound = self._size
        if self.extents is not None and (tensor_end := self.extents.bound(run.start, end)) is not None:
            # All of the tensor will be wanted, and hardly anything else.
            run.window = limit
            bound = min(bound, max(tensor_end, end + FIRST_WINDOW))
        run.window = min(run.window, limit)
        decode = max(run.near, end), min(end + min(run.window, NEAR), bound)
        bring = max(run.far, decode[1]), min(end + run.window, bound)
        run.near, run.far = max(run.near, decode[1]), max(run.far, bring[1])
        wanted = Want(run, decode[0] - end, _filled(decode), _filled(bring))
        return wanted if wanted.near or wanted.far else None


def _filled(extent: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return (extent,) if extent[0] < extent[1] else ()
