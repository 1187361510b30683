"""Which bytes of a pack to ask a remote for: payloads that lie close together come in one request."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from shardfs.formats.ids import PackId
from shardfs.formats.pack import Entry

MAX_GAP: Final = 64 << 10  # bytes between payloads of one request; 0.5 ms at 1 Gbit/s, about what a request costs
PIECE: Final = 1 << 20  # bytes of a request that could be split: 8 ms at 1 Gbit/s, and several fill the link together
MAX_REQUEST: Final = 8 << 20  # bytes of a request that is alone; 67 ms at 1 Gbit/s, more than its delay costs
FIRST_WINDOW: Final = 256 << 10  # bytes asked for at a place that nobody read before; 2 ms at 1 Gbit/s
MAX_WINDOW: Final = 2 << 20  # bytes; what goes beyond a read is a guess
MAX_NEIGHBOURS: Final = 1000  # entries; to keep that many takes the cache 0.1 s
_SPARE: Final = 256 << 10  # bytes of gaps that any plan may fetch
_SPARE_SHARE: Final = 16  # and one byte of gaps for so many bytes that are wanted
_STREAMS: Final = 16  # sequential readers of one pack that are told apart
_MAX_PACKS: Final = 256  # packs whose readers are remembered


class Range(NamedTuple):
    """Bytes [start, end) of a pack, and the entries in it that are wanted."""

    start: int
    end: int
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Bytes to ask for."""
        return self.end - self.start


def extend(wanted: Entry, following: Iterable[Entry], window: int, useful: Callable[[Entry], bool]) -> Range:
    """The range of `wanted` and of useful entries after it, at most `window` bytes unless `wanted` is larger.

    Args:
        wanted: must be in the range.
        following: the entries behind it in the pack, by offset.
        window: bytes.
        useful: tells whether an entry is worth fetching; others are gaps, at most `MAX_GAP` in a row.
    """
    start, end = wanted.offset, wanted.offset + wanted.stored_size
    taken = [wanted]
    for entry in following:
        stop = entry.offset + entry.stored_size
        if stop - start > window or entry.offset - end > MAX_GAP:
            break
        if useful(entry):
            taken.append(entry)
            end = stop
    return Range(start, end, tuple(taken))


def coalesce(entries: Iterable[Entry]) -> list[Range]:
    """Ranges that cover entries of one pack, by offset, each at most `PIECE` bytes unless an entry is larger.

    What lies between two entries is fetched with them when that takes less time than another request, as long as it
    adds little to all that is wanted.
    """
    ordered = sorted(entries, key=lambda e: (e.offset, e.stored_size, e.id))
    spare = _SPARE + sum(e.stored_size for e in ordered) // _SPARE_SHARE
    ranges: list[Range] = []
    for entry in ordered:
        stop = entry.offset + entry.stored_size
        if ranges:
            start, end, taken = ranges[-1]
            gap = max(0, entry.offset - end)
            if gap <= min(MAX_GAP, spare) and max(stop, end) - start <= PIECE:
                spare -= gap
                ranges[-1] = Range(start, max(stop, end), (*taken, entry))
                continue
        ranges.append(Range(entry.offset, stop, (entry,)))
    return ranges


def behind(entries: Sequence[Entry], wanted: Entry, window: int) -> list[Entry]:
    """Entries of a pack, given by offset, that begin within `window` bytes after another; at most `MAX_NEIGHBOURS`."""
    first = bisect_right(entries, wanted.offset, key=lambda e: e.offset)
    return [e for e in entries[first : first + MAX_NEIGHBOURS] if e.offset - wanted.offset <= window]


class Windows:
    """How far to read beyond what is wanted: hardly at random, twice as far each time in sequence.

    Safe to share between threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends: OrderedDict[PackId, OrderedDict[int, int]] = OrderedDict()  # where reads ended -> their windows

    def at(self, pack: PackId, offset: int) -> int:
        """Bytes to ask for at `offset`: twice as many as were asked for by the read that ended right before it."""
        with self._lock:
            ends = self._ends.get(pack, OrderedDict())
            for end in reversed(ends):
                if 0 <= offset - end <= MAX_GAP:
                    return min(2 * ends.pop(end), MAX_WINDOW)
        return FIRST_WINDOW

    def ended(self, pack: PackId, end: int, window: int) -> None:
        """A read with this window ended at `end`."""
        with self._lock:
            ends = self._ends.setdefault(pack, OrderedDict())
            self._ends.move_to_end(pack)
            ends[end] = window
            while len(ends) > _STREAMS:
                ends.popitem(last=False)
            while len(self._ends) > _MAX_PACKS:
                self._ends.popitem(last=False)
