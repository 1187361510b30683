"""Reads of packs at remotes: neighbours that will be wanted soon come along in the same range request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from shardfs.errors import RemoteProtocolError
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.store.cache import Cache
from shardfs.store.index import Location
from shardfs.store.store import Store

FIRST_WINDOW: Final = 1 << 20  # bytes asked for at a place that nobody read before
MAX_WINDOW: Final = 8 << 20  # bytes; at 1 Gbit/s one request then costs more in transfer (67 ms) than in delay
MAX_GAP: Final = 256 << 10  # bytes; 2 ms at 1 Gbit/s, less than another request costs
MAX_NEIGHBOURS: Final = 1000  # entries; to keep that many takes the cache 0.1 s, which the first one waits for
_STREAMS: Final = 16  # sequential readers of one pack that are told apart
_MAX_PACKS: Final = 256  # packs whose readers are remembered
_MAX_ENTRIES: Final = 100_000  # pack entries kept in memory, about 30 MB


class PackSource(Protocol):
    """The part of a remote that reading needs."""

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of a pack.

        Raises:
            RemoteError: else, in bounded time.
        """
        ...


class Range(NamedTuple):
    """Bytes [start, end) of a pack, and the entries in it that are wanted."""

    start: int
    end: int
    entries: tuple[Entry, ...]


def extend(wanted: Entry, following: Sequence[Entry], window: int, useful: Callable[[Entry], bool]) -> Range:
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


class _Running:
    def __init__(self, start: int, end: int) -> None:
        self.start, self.end = start, end
        self.done = threading.Event()


class _Reads:
    """Who reads one pack: running requests, and where finished ones ended, with the window they had."""

    def __init__(self) -> None:
        self.running: list[_Running] = []
        self.ends: OrderedDict[int, int] = OrderedDict()

    def window(self, offset: int) -> int:
        """Bytes to ask for at `offset`: twice as many as the request that ended right before it."""
        for end in reversed(self.ends):
            if 0 <= offset - end <= MAX_GAP:
                return min(2 * self.ends.pop(end), MAX_WINDOW)
        return FIRST_WINDOW

    def remember(self, end: int, window: int) -> None:
        """A request with this window ended at `end`."""
        self.ends[end] = window
        while len(self.ends) > _STREAMS:
            self.ends.popitem(last=False)


class RangeReader:
    """Payloads from packs at remotes. Safe to share between threads; no lock is held during a request."""

    def __init__(self, store: Store, cache: Cache | None, deadline_s: float) -> None:
        self._store = store
        self._cache = cache
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._reads: OrderedDict[PackId, _Reads] = OrderedDict()
        self._entries: OrderedDict[PackId, list[Entry]] = OrderedDict()
        self.requests = 0
        self.bytes_read = 0

    def payload(self, remote: PackSource, location: Location, *, alone: bool = False) -> bytes:
        """The stored payload of an entry, not decoded. Neighbours go to the cache.

        Args:
            remote: where the pack is.
            location: the wanted entry.
            alone: ask for nothing else, and not wait for others who read here.

        Raises:
            RemoteError: the remote did not give the bytes.
        """
        pack, entry = location.pack, location.entry
        if alone or self._cache is None:
            return self._request(remote, pack, Range(entry.offset, entry.offset + entry.stored_size, (entry,)))
        with self._lock:
            reads = self._reads_of(pack)
            end = entry.offset + entry.stored_size
            running = next((r for r in reads.running if r.start <= entry.offset and end <= r.end), None)
        if running is not None:
            running.done.wait(self._deadline_s)
            if (cached := self._cache.get(entry.id)) is not None and len(cached.payload) == entry.stored_size:
                return cached.payload
        return self._read_ahead(remote, pack, entry, reads)

    def _read_ahead(self, remote: PackSource, pack: PackId, entry: Entry, reads: _Reads) -> bytes:
        with self._lock:
            window = reads.window(entry.offset)
        span = self._plan(pack, entry, window)
        with self._claimed(reads, span) as claimed:
            payload = self._request(remote, pack, claimed)
        with self._lock:
            reads.remember(claimed.end, window)
        return payload

    def _plan(self, pack: PackId, wanted: Entry, window: int) -> Range:
        chunks = wanted.kind is Kind.CHUNK
        nearby = [
            e
            for e in self._entries_of(pack)
            if 0 < e.offset - wanted.offset <= window and (e.kind is Kind.CHUNK) == chunks
        ][:MAX_NEIGHBOURS]
        here = self._store.index.has((e.id for e in nearby), local=True)
        cache = self._cache

        def useful(entry: Entry) -> bool:
            return entry.id not in here and entry.stored_size > 0 and not (cache and cache.contains(entry.id))

        return extend(wanted, nearby, window, useful)

    @contextmanager
    def _claimed(self, reads: _Reads, span: Range) -> Iterator[Range]:
        """Tell others what is being read; what they read already is left out, except the wanted entry."""
        wanted = span.entries[0]
        with self._lock:
            stop = min((r.start for r in reads.running if r.start > wanted.offset), default=span.end)
            taken = [e for e in span.entries[1:] if e.offset + e.stored_size <= stop]
            last = taken[-1] if taken else wanted
            claimed = Range(span.start, last.offset + last.stored_size, (wanted, *taken))
            running = _Running(claimed.start, claimed.end)
            reads.running.append(running)
        try:
            yield claimed
        finally:
            with self._lock:
                reads.running.remove(running)
            running.done.set()

    def _request(self, remote: PackSource, pack: PackId, span: Range) -> bytes:
        length = span.end - span.start
        data = remote.read_pack(pack, span.start, length) if length else b""
        if len(data) != length:
            msg = f"remote gave {len(data)} bytes of pack {pack.hex()[:12]}, asked for {length}"
            raise RemoteProtocolError(msg)
        with self._lock:
            self.requests += 1
            self.bytes_read += length
        view = memoryview(data)
        for entry in span.entries[1:]:
            if self._cache is not None:
                begin = entry.offset - span.start
                payload = view[begin : begin + entry.stored_size]
                self._cache.put(entry.id, entry.codec, entry.raw_size, entry.bases, payload)
        return data if len(span.entries) == 1 else bytes(view[: span.entries[0].stored_size])

    def _reads_of(self, pack: PackId) -> _Reads:
        found = self._reads.get(pack)
        if found is None:
            found = self._reads[pack] = _Reads()
        self._reads.move_to_end(pack)
        while len(self._reads) > _MAX_PACKS:
            self._reads.popitem(last=False)
        return found

    def _entries_of(self, pack: PackId) -> list[Entry]:
        with self._lock:
            found = self._entries.get(pack)
        if found is None:
            found = self._store.index.entries(pack)
            with self._lock:
                self._entries[pack] = found
                while len(self._entries) > 1 and sum(map(len, self._entries.values())) > _MAX_ENTRIES:
                    self._entries.popitem(last=False)
        return found
