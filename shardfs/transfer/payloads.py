"""Payloads from remotes: asked for once however many want them, many requests at a time, kept until they are taken.

A read asks for the payload of its chunk and those of all its bases at once, and what is read ahead is on its way before
anybody waits for it. A thread of its own writes what came to the cache: nobody waits for the disk.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple, Protocol

from shardfs.errors import (
    PackNotFoundError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    ShardfsError,
)
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.remotes import deadline
from shardfs.store.cache import Cache
from shardfs.store.index import Location
from shardfs.store.store import Store
from shardfs.transfer import ranges
from shardfs.transfer.couriers import Couriers, Job
from shardfs.transfer.keeper import Keeper, Parcel
from shardfs.transfer.needs import Needs
from shardfs.transfer.ranges import Range, Windows

_MAX_ENTRIES: Final = 100_000  # pack entries kept in memory, about 30 MB

_LEAST_UNKEPT: Final = 32 << 20  # bytes that may wait for the disk whatever the limit is
_CLOSE_S: Final = 1.0  # for which the end of a program waits for the cache: an idle disk takes all that may wait

_Key = tuple[str, PackId, bytes]  # a place, a pack and an id in it


class PackSource(Protocol):
    """The part of a remote that reading needs."""

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of a pack.

        Raises:
            RemoteError: else, in bounded time.
        """
        ...


class Traffic(NamedTuple):
    """What remotes were asked for.

    Attributes:
        requests: ranges that came, or did not.
        failed: of them those that did not come.
        bytes: of the ranges that came.
        payloads: payloads in them that were wanted, by a read or ahead.
        coalesced: of them those that came in the same range as another.
        shared: reads that found their payload on its way, or here because somebody else had asked for it.
        peak: most requests to one remote at the same time, until now.
        waiting_bytes: of payloads that came and are in memory now, until somebody takes them and the cache has them.
        unkept_bytes: of payloads that were read and not written to the cache, because its disk was too slow.
    """

    requests: int = 0
    failed: int = 0
    bytes: int = 0
    payloads: int = 0
    coalesced: int = 0
    shared: int = 0
    peak: int = 0
    waiting_bytes: int = 0
    unkept_bytes: int = 0


class _Request:
    """One range on its way, or in memory until all of its payloads were taken."""

    def __init__(self, place: str, pack: PackId, span: Range, until: float | None) -> None:
        self.place, self.pack, self.span = place, pack, span
        self.until = until  # monotonic time after which it is not worth starting
        self.untaken = {entry.id for entry in span.entries}
        self.done = threading.Event()
        self.is_stored = threading.Event()  # the cache has what it keeps of it
        self.data = b""
        self.error: ShardfsError | None = None
        self.job: Job

    def is_for(self, location: Location) -> bool:
        """Whether it was made for a payload."""
        return (self.place, self.pack) == location[:2] and location.entry in self.span.entries

    def covers(self, entry: Entry) -> bool:
        """Whether the payload of an entry is in it."""
        return self.span.start <= entry.offset and entry.offset + entry.stored_size <= self.span.end

    def payload(self, entry: Entry) -> memoryview:
        """The payload of an entry that it covers, once it is done."""
        begin = entry.offset - self.span.start
        return memoryview(self.data)[begin : begin + entry.stored_size]


class Payloads:
    """Stored payloads of chunks and objects that remotes have, not decoded. Safe to share between threads."""

    def __init__(
        self,
        store: Store,
        cache: Cache | None,
        remote: Callable[[str], PackSource],
        holds: Callable[[bytes], bool],
        *,
        deadline_s: float,
        limit_bytes: int,
        charge: Callable[[int], None],
    ) -> None:
        """Payloads of the packs that an index knows at remotes.

        Args:
            store: its index.
            cache: where payloads are kept; None: nothing is read ahead.
            remote: opens a remote by name.
            holds: whether the plaintext of a chunk is in memory.
            deadline_s: seconds after which an answer is not waited for any more.
            limit_bytes: most bytes that stay in memory though the cache has them. While as many more, or
                `_LEAST_UNKEPT`, wait for the cache, nothing is brought ahead.
            charge: told how many bytes more are in memory or on their way, or fewer when it is negative.
        """
        self._store, self._cache, self._remote = store, cache, remote
        self._deadline_s, self._limit_bytes = deadline_s, limit_bytes
        self._charge = charge
        self._needs = Needs(store.index, cache, holds)
        self._windows = Windows()
        self._lock = threading.Lock()
        self._requests: dict[_Key, _Request] = {}  # on their way, and come
        self._come: OrderedDict[_Request, None] = OrderedDict()
        self._couriers: defaultdict[str, Couriers] = defaultdict(lambda: Couriers(self._has_room))
        self._entries: OrderedDict[PackId, list[Entry]] = OrderedDict()
        self._traffic = Traffic()
        self._waiting = 0  # bytes of what came
        self._unkept_limit_bytes = max(limit_bytes, _LEAST_UNKEPT)
        self._keeper = Keeper(self._unkept_limit_bytes)

    def has(self, location: Location) -> bool:
        """Whether a payload is on its way, or came and waits in memory."""
        return bool(self._requests) and self._find(location) is not None

    def get(self, location: Location, *, alone: bool = False) -> memoryview:
        """The stored payload of an entry. All that its decoding takes is asked for at the same time.

        Args:
            location: the wanted entry.
            alone: ask for nothing else, and take nothing that others asked for.

        Raises:
            PackNotFoundError: the remote has the pack no longer. RemoteError: it did not give the bytes.
        """
        if alone:
            return memoryview(self._read_alone(location))
        started = time.monotonic()
        request = self._find(location)
        if request is not None:
            self._count(shared=1)
            if not request.done.is_set():
                self._couriers[request.place].send(request.job)
        elif (request := self._ask(location)) is None:
            return memoryview(self._read_alone(location))
        self._wait(request)
        if request.error is None:
            return self._take(request, location.entry)
        is_alone = request.span.size == location.entry.stored_size
        left = self._deadline_s - (time.monotonic() - started)
        if is_alone or left <= 0 or isinstance(request.error, PackNotFoundError | RemoteTimeoutError):
            raise request.error
        with deadline.limit(left):  # what came along may be what was wrong with it
            return memoryview(self._read_alone(location))

    def bring(self, ids: Iterable[bytes], distance: int = 0, owner: object = None) -> int:
        """Have chunks on their way that will be wanted soon, and their bases; returns at once and never fails.

        Args:
            ids: of the chunks, in the order in which they will be wanted.
            distance: bytes between the reader and the first of them; the nearest ones of all readers come first.
            owner: for `cancel`.

        Returns:
            Bytes that are on their way, or came and wait in memory; 0 when all is here, or there is no cache.
        """
        if self._cache is None:
            return 0
        needed: list[Location] = []
        with suppress(ShardfsError):
            needed = self._needs.of_chunks(ids)
            for request in self._claim(needed, None, owner):
                self._couriers[request.place].send_ahead(request.job, distance)
                distance += request.span.size
        return sum(location.entry.stored_size for location in needed)

    def cancel(self, owner: object) -> None:
        """Forget what was to be brought for `owner` and is not on its way."""
        for couriers in list(self._couriers.values()):
            couriers.cancel(owner)

    def reject(self, location: Location) -> None:
        """The payload of an entry is damaged: forget it, here and in the cache."""
        request = self._find(location)
        if request is not None:
            request.is_stored.wait(self._deadline_s)
            with self._lock:
                self._requests.pop(_key(location), None)
        if self._cache is not None:
            self._cache.discard(location.entry.id)

    def traffic(self) -> Traffic:
        """What was asked for so far."""
        peak = max((couriers.peak for couriers in list(self._couriers.values())), default=0)
        return self._traffic._replace(peak=peak, waiting_bytes=self._waiting, unkept_bytes=self._keeper.dropped)

    def close(self) -> None:
        """Bring nothing more and use the cache no more, once it has what came; what is on its way ends by itself."""
        for couriers in list(self._couriers.values()):
            couriers.cancel()
        self._keeper.close(_CLOSE_S)

    def settle(self) -> bool:
        """Wait until the cache has what came, but not longer than the deadline; whether it has."""
        return self._keeper.settle(self._deadline_s)

    # Asking

    def _find(self, location: Location) -> _Request | None:
        request = self._requests.get(_key(location))
        return request if request is not None and request.covers(location.entry) else None

    def _ask(self, location: Location) -> _Request | None:
        """Have a payload on its way that somebody waits for, with all that it needs and its neighbours.

        None when others asked for it in this moment and it is not to be found any more.
        """
        wanted = self._needs.with_bases([location, *self._neighbours(location)])
        made = self._claim(wanted, time.monotonic() + min(self._deadline_s, deadline.remaining()), None)
        mine = next((request for request in made if request.is_for(location)), None)
        for request in made:
            self._couriers[request.place].send(request.job)
        return mine or self._find(location)

    def _neighbours(self, location: Location) -> list[Location]:
        """What lies behind a payload and was asked for by nobody: little at random, more in sequence."""
        if self._cache is None:
            return []
        _, pack, _, wanted = location
        window = self._windows.at(pack, wanted.offset)
        near = [
            entry
            for entry in ranges.behind(self._entries_of(pack), wanted, window)
            if (entry.kind is Kind.CHUNK) == (wanted.kind is Kind.CHUNK) and entry.stored_size
        ]
        here = self._store.index.has((entry.id for entry in near), local=True)
        cache = self._cache

        def is_useful(entry: Entry) -> bool:
            is_coming = self.has(location._replace(entry=entry))
            return not is_coming and entry.id not in here and not cache.contains(entry.id)

        span = ranges.extend(wanted, near, window, is_useful)
        self._windows.ended(pack, span.end, max(window, span.size))
        return [location._replace(entry=entry) for entry in span.entries[1:]]

    def _claim(self, locations: Sequence[Location], until: float | None, owner: object) -> list[_Request]:
        """Requests for those of some payloads that nobody has asked for, in their order; the caller sends them."""
        turns = {location.entry.id: turn for turn, location in enumerate(locations)}
        made: list[_Request] = []
        with self._lock:
            packs: dict[tuple[str, PackId], list[Entry]] = {}
            for location in locations:
                if self._find(location) is None:
                    packs.setdefault((location.place, location.pack), []).append(location.entry)
            for (place, pack), entries in packs.items():
                for span in ranges.coalesce(entries):
                    request = _Request(place, pack, span, until)
                    request.job = self._job(request, owner)
                    self._requests.update(((place, pack, entry.id), request) for entry in span.entries)
                    made.append(request)
        return sorted(made, key=lambda request: min(turns[entry.id] for entry in request.span.entries))

    def _job(self, request: _Request, owner: object) -> Job:
        def drop() -> None:
            request.error = RemoteUnavailableError("it was not wanted any more")
            self._forget(request)
            request.done.set()

        return Job(lambda: self._fetch(request), drop, owner)

    def _wait(self, request: _Request) -> None:
        """Return when a request is done. One that runs ends by itself, in bounded time."""
        while not request.done.wait(self._deadline_s):
            if not request.job.is_taken:
                raise self._too_late(request)

    def _too_late(self, request: _Request) -> RemoteTimeoutError:
        return RemoteTimeoutError(f"{request.place} is busy with other requests for {self._deadline_s:g} s")

    def _take(self, request: _Request, entry: Entry) -> memoryview:
        with self._lock:
            request.untaken.discard(entry.id)
            self._drop_if_used(request)
        return request.payload(entry)

    # On the threads of the couriers

    def _fetch(self, request: _Request) -> None:
        self._charge(request.span.size)
        try:
            request.data = self._read_in_time(request)
        except Exception as error:  # noqa: BLE001 - who waits must hear of everything
            request.error = error if isinstance(error, ShardfsError) else RemoteError(f"{request.place}: {error!r}")
            self._charge(-request.span.size)
            self._forget(request)
            request.done.set()
            return
        self._arrived(request)
        write, done = partial(self._store_in_cache, request), partial(self._stored, request)
        # Before anybody hears of it: who has read everything and then waits for the cache waits for this, too.
        self._keeper.add(Parcel(request.span.size, write, lambda: not request.untaken, done))
        request.done.set()

    def _store_in_cache(self, request: _Request) -> None:
        if self._cache is not None:
            for entry in request.span.entries:
                self._cache.put(entry.id, entry.codec, entry.raw_size, entry.bases, request.payload(entry))

    def _stored(self, request: _Request) -> None:
        request.is_stored.set()
        with self._lock:
            self._drop_if_used(request)
            self._make_room()
        for couriers in list(self._couriers.values()):
            couriers.go_on()

    def _read_in_time(self, request: _Request) -> bytes:
        left = self._deadline_s if request.until is None else request.until - time.monotonic()
        if left <= 0:
            raise self._too_late(request)
        with deadline.limit(left):
            return self._read(request.place, request.pack, request.span)

    def _read_alone(self, location: Location) -> bytes:
        entry = location.entry
        span = Range(entry.offset, entry.offset + entry.stored_size, (entry,))
        data = self._read(location.place, location.pack, span)
        self._count(requests=1, bytes=span.size, payloads=1)
        return data

    def _read(self, place: str, pack: PackId, span: Range) -> bytes:
        """The bytes of a range.

        Raises:
            ShardfsError: as `get`, or there is no such remote.
        """
        try:
            data = self._remote(place).read_pack(pack, span.start, span.size) if span.size else b""
        except BaseException:
            self._count(requests=1, failed=1)
            raise
        if len(data) != span.size:
            self._count(requests=1, failed=1)
            msg = f"remote gave {len(data)} bytes of pack {pack.hex()[:12]}, asked for {span.size}"
            raise RemoteProtocolError(msg)
        return data

    # What came

    def _arrived(self, request: _Request) -> None:
        """Keep a request until its payloads are taken, or others need the room: then the cache has them."""
        with self._lock:
            self._come[request] = None
            self._waiting += request.span.size
            wanted = len(request.span.entries)
            more = {"requests": 1, "bytes": request.span.size, "payloads": wanted}
            self._add(**more, coalesced=wanted if wanted > 1 else 0)
            self._make_room()

    def _has_room(self) -> bool:
        return self._waiting <= self._limit_bytes + self._unkept_limit_bytes

    def _make_room(self) -> None:
        for request in list(self._come) if self._waiting > self._limit_bytes else ():
            if request.is_stored.is_set():
                self._drop(request)
                if self._waiting <= self._limit_bytes:
                    break

    def _drop_if_used(self, request: _Request) -> None:
        """Forget what everybody has who asked for it. Another who needs the same base finds it in the cache."""
        if self._cache is not None and not request.untaken and request.is_stored.is_set() and request in self._come:
            self._drop(request)

    def _drop(self, request: _Request) -> None:
        del self._come[request]
        self._waiting -= request.span.size
        self._charge(-request.span.size)
        self._unlist(request)

    def _forget(self, request: _Request) -> None:
        with self._lock:
            self._unlist(request)

    def _unlist(self, request: _Request) -> None:
        for entry in request.span.entries:
            key = (request.place, request.pack, entry.id)
            if self._requests.get(key) is request:
                del self._requests[key]

    def _count(self, **more: int) -> None:
        with self._lock:
            self._add(**more)

    def _add(self, **more: int) -> None:
        counted = self._traffic
        self._traffic = counted._replace(**{name: getattr(counted, name) + n for name, n in more.items()})

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


def _key(location: Location) -> _Key:
    return location.place, location.pack, location.entry.id
