"""Payloads from remotes: asked for once however many want them, many requests at a time, kept until they are taken.

A read asks for the payload of its chunk and those of all its bases at once, and what is read ahead is on its way before
anybody waits for it. A thread of its own writes what came to the cache: nobody waits for the disk.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from shardfs.errors import PackNotFoundError, RemoteTimeoutError, ShardfsError
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.remotes import deadline
from shardfs.store.cache import Cache
from shardfs.store.index import Location
from shardfs.store.memory import PlaintextMemory
from shardfs.store.store import Store
from shardfs.transfer import ranges
from shardfs.transfer.keeper import Keeper, Parcel
from shardfs.transfer.needs import Needs
from shardfs.transfer.ranges import Range, Windows
from shardfs.transfer.requests import PackSource, Request, Requests
from shardfs.transfer.standings import Standings

_MAX_ENTRIES: Final = 100_000  # pack entries kept in memory, about 30 MB

_LEAST_UNKEPT: Final = 32 << 20  # bytes that may wait for the disk whatever the limit is
_CLOSE_S: Final = 1.0  # for which the end of a program waits for the cache: an idle disk takes all that may wait

_Key = tuple[PackId, bytes]  # a pack and an id in it


class Arrival(NamedTuple):
    """A stored payload, not decoded, and the remote that gave it."""

    payload: memoryview
    place: str


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
        moved: times that another remote was asked for a range, because one failed or kept somebody waiting.
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
    moved: int = 0


class Payloads:
    """Stored payloads of chunks and objects that remotes have, not decoded. Safe to share between threads."""

    def __init__(
        self,
        store: Store,
        cache: Cache | None,
        remote: Callable[[str], PackSource],
        memory: PlaintextMemory,
        *,
        deadline_s: float,
        limit_bytes: int,
        standings: Standings | None = None,
    ) -> None:
        """Payloads of the packs that an index knows at remotes.

        Args:
            store: its index.
            cache: where payloads are kept; None: nothing is read ahead.
            remote: opens a remote by name.
            memory: what it holds need not come; what comes counts against its budget.
            deadline_s: seconds after which an answer is not waited for any more.
            limit_bytes: most bytes that stay in memory though the cache has them. While as many more, or
                `_LEAST_UNKEPT`, wait for the cache, nothing is brought ahead.
            standings: which remotes to prefer; None: by their names.
        """
        self._store, self._cache = store, cache
        self._deadline_s, self._limit_bytes = deadline_s, limit_bytes
        self._charge = memory.lend
        self._sender = Requests(
            remote,
            standings or Standings(),
            deadline_s=deadline_s,
            has_room=self._has_room,
            ended=self._ended,
            charge=memory.lend,
            count=self._count,
        )
        self._needs = Needs(store.index, cache, memory.holds, self._sender.rank)
        self._windows = Windows()
        self._lock = threading.Lock()
        self._requests: dict[_Key, Request] = {}  # on their way, and come
        self._come: OrderedDict[Request, None] = OrderedDict()
        self._entries: OrderedDict[PackId, list[Entry]] = OrderedDict()
        self._traffic = Traffic()
        self._waiting = 0  # bytes of what came
        self._unkept_limit_bytes = max(limit_bytes, _LEAST_UNKEPT)
        self._keeper = Keeper(self._unkept_limit_bytes)

    def has(self, location: Location) -> bool:
        """Whether a payload is on its way, or came and waits in memory."""
        return bool(self._requests) and self._find(location) is not None

    def get(self, location: Location, *, is_last: bool = True) -> Arrival:
        """The stored payload of an entry. All that its decoding takes is asked for at the same time.

        Args:
            location: the wanted entry; its pack is asked of all remotes that have it, one after the other.
            is_last: there is no copy in another pack; else `SlowError` says when it is time to ask for that one.

        Raises:
            PackNotFoundError: no remote has the pack any more. RemoteError: none gave the bytes.
        """
        started = time.monotonic()
        request = self._find(location)
        if request is not None:
            self._count(shared=1)
            if not request.done.is_set():
                self._sender.send(request)
        elif (request := self._ask(location)) is None:
            return self.get_alone(location)
        self._sender.wait(request, is_last=is_last)
        if request.error is None:
            return Arrival(self._take(request, location.entry), request.source)
        is_alone = request.span.size == location.entry.stored_size or len(request.asked) > 1
        left = self._deadline_s - (time.monotonic() - started)
        if is_alone or left <= 0 or isinstance(request.error, PackNotFoundError | RemoteTimeoutError):
            raise request.error
        with deadline.limit(left):  # what came along may be what was wrong with it
            return self.get_alone(location)

    def get_alone(self, location: Location) -> Arrival:
        """As `get`, but from this very place, with nothing else, and nothing is taken that others asked for."""
        entry = location.entry
        span = Range(entry.offset, entry.offset + entry.stored_size, (entry,))
        data = self._sender.read(location.place, location.pack, span)
        self._count(requests=1, bytes=span.size, payloads=1)
        return Arrival(memoryview(data), location.place)

    def patience_s(self, location: Location, others: Sequence[str]) -> float:
        """Seconds to wait for a payload before one of the other remotes is asked."""
        return self._sender.patience_s(location.place, others, location.entry.stored_size)

    def by_pack(self, locations: Iterable[Location]) -> list[list[Location]]:
        """Copies in the order of asking, those in the same pack together; looks whether remotes are back."""
        found = list(locations)
        if len({location.place for location in found}) < 2:
            return [[location] for location in found]
        self._sender.look_again(found)
        packs: dict[PackId, list[Location]] = {}
        for location in found:
            packs.setdefault(location.pack, []).append(location)
        groups = []
        for pack, same in packs.items():
            order = self._sender.ranked(pack, (location.place for location in same))
            groups.append(sorted((c for c in same if c.place in order), key=lambda c: order.index(c.place)))
        return sorted(groups, key=lambda group: self._sender.rank(group[0].place))

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
                self._sender.send_ahead(request, distance)
                distance += request.span.size
        return sum(location.entry.stored_size for location in needed)

    def cancel(self, owner: object) -> None:
        """Forget what was to be brought for `owner` and is not on its way."""
        self._sender.cancel(owner)

    def distrust(self, place: str) -> None:
        """A remote gave wrong bytes twice: others are asked first for a while."""
        self._sender.distrust(place)

    def is_gone(self, location: Location) -> bool:
        """Whether its remote said that it has the pack no longer."""
        return self._sender.is_gone(location.place, location.pack)

    def learned(self, place: str) -> None:
        """The index knows anew which packs a remote has."""
        self._sender.learned(place)

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
        sender = self._sender
        return self._traffic._replace(
            peak=sender.peak, waiting_bytes=self._waiting, unkept_bytes=self._keeper.dropped, moved=sender.moved
        )

    def close(self) -> None:
        """Bring nothing more and use the cache no more, once it has what came; what is on its way ends by itself."""
        self._sender.cancel()
        self._keeper.close(_CLOSE_S)

    def settle(self) -> bool:
        """Wait until the cache has what came, but not longer than the deadline; whether it has."""
        return self._keeper.settle(self._deadline_s)

    # Asking

    def _find(self, location: Location) -> Request | None:
        request = self._requests.get(_key(location))
        return request if request is not None and request.covers(location.entry) else None

    def _ask(self, location: Location) -> Request | None:
        """Have a payload on its way that somebody waits for, with all that it needs and its neighbours.

        None when others asked for it in this moment and it is not to be found any more.
        """
        wanted = self._needs.with_bases([location, *self._neighbours(location)])
        made = self._claim(wanted, time.monotonic() + min(self._deadline_s, deadline.remaining()), None)
        mine = next((r for r in made if r.pack == location.pack and location.entry in r.span.entries), None)
        for request in made:
            self._sender.send(request)
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

    def _claim(self, locations: Sequence[Location], until: float | None, owner: object) -> list[Request]:
        """Requests for those of some payloads that nobody has asked for, in their order; the caller sends them."""
        turns = {location.entry.id: turn for turn, location in enumerate(locations)}
        made: list[Request] = []
        places = {c.pack: self._places(c) for c in {c.pack: c for c in locations}.values()}
        with self._lock:
            packs: dict[PackId, list[Entry]] = {}
            for location in locations:
                if self._find(location) is None:
                    packs.setdefault(location.pack, []).append(location.entry)
            for pack, entries in packs.items():
                for span in ranges.coalesce(entries):
                    request = Request(pack, span, places[pack], until, owner)
                    self._requests.update(((pack, entry.id), request) for entry in span.entries)
                    made.append(request)
        return sorted(made, key=lambda request: min(turns[entry.id] for entry in request.span.entries))

    def _places(self, location: Location) -> list[str]:
        """Remotes that have the pack of a payload, in the order of asking."""
        known = self._store.index.places(location.pack)
        return self._sender.ranked(location.pack, [*known, location.place])

    def _take(self, request: Request, entry: Entry) -> memoryview:
        with self._lock:
            request.untaken.discard(entry.id)
            self._drop_if_used(request)
        return request.payload(entry)

    # On the threads of the couriers

    def _ended(self, request: Request) -> None:
        """A request has its bytes, or its error."""
        if not request.source:
            self._forget(request)
            return
        self._arrived(request)
        write, done = partial(self._store_in_cache, request), partial(self._stored, request)
        # Before anybody hears of it: who has read everything and then waits for the cache waits for this, too.
        self._keeper.add(Parcel(request.span.size, write, lambda: not request.untaken, done))

    def _store_in_cache(self, request: Request) -> None:
        if self._cache is not None:
            for entry in request.span.entries:
                self._cache.put(entry.id, entry.codec, entry.raw_size, entry.bases, request.payload(entry))

    def _stored(self, request: Request) -> None:
        request.is_stored.set()
        with self._lock:
            self._drop_if_used(request)
            self._make_room()
        self._sender.go_on()

    # What came

    def _arrived(self, request: Request) -> None:
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

    def _drop_if_used(self, request: Request) -> None:
        """Forget what everybody has who asked for it. Another who needs the same base finds it in the cache."""
        if self._cache is not None and not request.untaken and request.is_stored.is_set() and request in self._come:
            self._drop(request)

    def _drop(self, request: Request) -> None:
        del self._come[request]
        self._waiting -= request.span.size
        self._charge(-request.span.size)
        self._unlist(request)

    def _forget(self, request: Request) -> None:
        with self._lock:
            self._unlist(request)

    def _unlist(self, request: Request) -> None:
        for entry in request.span.entries:
            key = (request.pack, entry.id)
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
    return location.pack, location.entry.id
