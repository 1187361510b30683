"""Readers of one file, told apart by where they read, and what each of them will want next.

A kernel sends the requests of all programs and threads as one stream, those of one reader slightly out of order. So a
reader is a run of bytes that grows at its end, not a descriptor and not a thread.
"""

from __future__ import annotations

import os
from typing import Final

from shardfs.prefetch.extents import Extents
from shardfs.prefetch.walk import Walk
from shardfs.prefetch.want import Want

TOLERANCE: Final = 512 << 10  # bytes by which requests of one reader may be out of order
FIRST_WINDOW: Final = 1 << 20  # bytes loaded ahead of a reader that has read on for the first time
FRONT_WINDOW: Final = 4 << 20  # bytes fetched from a remote ahead of one that began at the front: it reads all, mostly
NEAR: Final = 4 << 20  # bytes decoded ahead of a reader: two cores decode two chunks while one is copied
CORES: Final = max(2, len(os.sched_getaffinity(0)))
_SHORT_WHILE: Final = 16 << 20  # bytes that all readers of a file read meanwhile
MAX_CURSORS: Final = 8  # readers of one file that are told apart at the same time
MAX_LEGS: Final = 4096  # that are remembered; who makes more reads at random
_LEG: Final = 1 << 20  # bytes after which readers that take turns are told apart in the order of what was read
_FEW_LEGS: Final = 1024  # of a file that readers take turns with


class Leg:
    """Bytes [start, end) of a file that one reader read in a row before another one went on.

    Attributes:
        goes_on: whether it is more than one read.
    """

    __slots__ = ("end", "goes_on", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.goes_on = False


class Run:
    """Bytes [start, end) of a file that one reader has read in a row.

    Attributes:
        leg: the last part of it.
        seen: bytes that all readers had read when it was read last.
        window: bytes to have ahead of the end.
        near: how far the file was asked to be decoded for this reader.
        far: how far it was asked to be brought from a remote.
        goes_on: whether it has read on from where it was.
    """

    __slots__ = ("end", "far", "goes_on", "leg", "near", "seen", "start", "window")

    def __init__(self, leg: Leg, seen: int) -> None:
        self.start, self.end = leg.start, leg.end
        self.leg, self.seen = leg, seen
        self.window = FIRST_WINDOW
        self.near = self.far = 0
        self.goes_on = False


class Cursors:
    """The readers of one file. Not safe to share between threads.

    Attributes:
        active: the readers; the one that read last at the end.
        legs: what was read, in this order; None when that is no order.
        extents: where tensors are, once that is known.
        walk: the one that touches the beginnings of tensors.
        dropped: the reader that the last call of `read` gave up for another one, if any.
    """

    def __init__(self, size: int) -> None:
        self.active: list[Run] = []
        self.legs: list[Leg] | None = []
        self.extents: Extents | None = None
        self.walk = Walk()
        self.dropped: Run | None = None
        self._size = size
        self._leg_size = max(_LEG, size // _FEW_LEGS)
        self._total = 0  # bytes read

    def read(self, offset: int, stop: int, limit: int) -> Want | None:
        """Note a read of [offset, stop); what that reader will want, at most `limit` bytes ahead."""
        self.dropped = None
        run = self._run(offset, stop)
        if run is not None and run.goes_on:
            return self._ahead(run, limit)
        return None if self.extents is None else self.walk.read(offset, stop, limit, self.extents)

    def read_all(self, limit: int) -> Want | None:
        """The whole file will be read from its beginning on."""
        run = self._new(0, 0)
        run.goes_on = True
        run.window = limit
        return self._ahead(run, limit)

    def _run(self, offset: int, stop: int) -> Run | None:
        """The run that a read belongs to; None when it did not bring it further."""
        active = self.active
        for place in range(len(active) - 1, -1, -1):
            run = active[place]
            gap = offset - run.end
            if -TOLERANCE <= gap <= TOLERANCE:
                if place != len(active) - 1:
                    active.append(active.pop(place))
                if offset < run.start:
                    run.start = run.leg.start = offset
                if stop <= run.end:
                    return None
                # A read at random may come near; hardly ever does one begin exactly where another ended.
                run.goes_on = run.goes_on or not gap
                self._extend(run, stop)
                return run
        run = self._new(offset, stop)
        run.goes_on = self.extents is not None and self.extents.begins(offset, stop)
        return run

    def _new(self, offset: int, stop: int) -> Run:
        self._total += stop - offset
        run = Run(self._begin_leg(offset, stop), self._total)
        if len(self.active) == MAX_CURSORS:
            self.dropped = self.active.pop(0)
        self.active.append(run)
        return run

    def _extend(self, run: Run, stop: int) -> None:
        leg = run.leg
        if self.legs and leg is not self.legs[-1]:
            silent = self._total - run.seen
            if silent > 2 * _LEG or leg.end - leg.start >= self._leg_size:
                leg = run.leg = self._begin_leg(run.end, stop)
        self._total += stop - run.end
        run.seen = self._total
        run.end = leg.end = stop
        leg.goes_on = True

    def _begin_leg(self, start: int, end: int) -> Leg:
        leg = Leg(start, end)
        if self.legs is not None:
            self.legs.append(leg)
            if len(self.legs) > MAX_LEGS:
                self.legs = None
        return leg

    def _ahead(self, run: Run, limit: int) -> Want | None:
        if limit <= NEAR and self._busy() > CORES:
            return None  # they keep all cores decoding what they wait for
        end = run.end
        near = min(NEAR, run.window, limit)
        if run.near - end >= near // 2 and (limit <= NEAR or run.far - end >= run.window // 2):
            return None
        if run.near:
            run.window = 2 * run.window
        elif not run.start and limit > NEAR:
            run.window = FRONT_WINDOW
        bound = self._size
        if self.extents is not None and (tensor_end := self.extents.bound(run.start, end)) is not None:
            # All of the tensor will be wanted, and hardly anything else.
            run.window = limit
            bound = min(bound, tensor_end)
        run.window = min(run.window, limit)
        decode = max(run.near, end), min(end + min(run.window, NEAR), bound)
        bring = max(run.far, decode[1]), min(end + run.window, bound)
        run.near, run.far = max(run.near, decode[1]), max(run.far, bring[1])
        wanted = Want(run, decode[0] - end, _filled(decode), _filled(bring))
        return wanted if wanted.near or wanted.far else None

    def _busy(self) -> int:
        """Readers that went on a short while ago."""
        return sum(run.goes_on and self._total - run.seen < _SHORT_WHILE for run in self.active)


def _filled(extent: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return (extent,) if extent[0] < extent[1] else ()
