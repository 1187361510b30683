"""The lazy read path: verified plaintext by id, from memory, packs here, the cache, or a remote.

The cache holds what came from remotes, and the plaintext of chunks that are differences to differences; for those it
is asked before the packs. Every copy that is known is tried before a read fails, and nothing is returned that does not
hash to its id.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

from shardfs.codecs import registry
from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    ChunkCorruptedError,
    FormatError,
    IntegrityError,
    MalformedError,
    NotFoundError,
    PackNotFoundError,
    RefNotFoundError,
    RemoteError,
    RemoteTimeoutError,
    ShardfsError,
    StoreError,
)
from shardfs.formats.ids import ChunkId, Kind
from shardfs.formats.manifest import ChunkRef
from shardfs.formats.pack import Entry
from shardfs.remotes import deadline, fresh
from shardfs.store import copies
from shardfs.store.cache import Cache
from shardfs.store.index import LOCAL, Location
from shardfs.store.memory import AheadBytes, PlaintextMemory
from shardfs.store.store import Store
from shardfs.transfer.ahead import Ahead
from shardfs.transfer.attempts import Attempts
from shardfs.transfer.flights import Flights
from shardfs.transfer.payloads import Arrival, Payloads, Traffic
from shardfs.transfer.requests import PackSource, SlowError
from shardfs.transfer.search import Search
from shardfs.transfer.standings import Standings

_log = logging.getLogger(__name__)

RECONCILE_INTERVAL_S: Final = 60.0  # reading all tables costs about 1 s for 10 GB of packs
_DAMAGE: Final = (FormatError, IntegrityError, NotFoundError)  # this copy is no good, another may be
IDLE_S: Final = 20.0  # without reads, after which plaintext in memory is forgotten
PAYLOAD_SHARE: Final = 8  # of the budget, one byte in so many is for payloads that came ahead
_MAX_REPORTED: Final = 10_000  # damaged copies that are remembered, so that each is reported once


class Counters(NamedTuple):
    """What a reader has done.

    Attributes:
        memory_hits: reads answered from decoded plaintext.
        local_reads: payloads read from packs here.
        cache_reads: payloads read from the cache.
        remote_reads: payloads that a remote was asked for.
        remote_requests: requests to remotes.
        remote_bytes: bytes that remotes sent, neighbours included.
        shared: reads that waited for the same fetch of another thread.
        damaged: damaged copies seen, cache records included.
        healed: reads that met a damaged copy and were answered from another one.
        memory_bytes: plaintext kept and in flight now.
    """

    memory_hits: int
    local_reads: int
    cache_reads: int
    remote_reads: int
    remote_requests: int
    remote_bytes: int
    shared: int
    damaged: int
    healed: int
    memory_bytes: int


class Reader:
    """Verified plaintext by id. Safe to share between threads; the store and the cache stay the caller's.

    Implements `history.objects.ObjectSource` and `ChunkSource`.

    Attributes:
        told: called with one line for each damaged copy, once.
    """

    def __init__(
        self,
        store: Store,
        *,
        cache: Cache | None = None,
        remote: Callable[[str], PackSource] | None = None,
        relearn: Callable[[str], None] | None = None,
        budget_bytes: int = 256 << 20,
        deadline_s: float = 30.0,
        standings: Standings | None = None,
    ) -> None:
        """A reader over a store.

        Args:
            store: its packs are tried first; its index knows the packs of remotes.
            cache: keeps what comes from remotes, and what takes long to decode.
            remote: opens a remote by name; None when there are none.
            relearn: learns which packs a remote, by name, has now; asked when one is gone.
            budget_bytes: most bytes of decoded chunks in memory.
            deadline_s: seconds after which no further remote is asked for an id.
            standings: which remotes to ask first; None: by their names.
        """
        self._store = store
        self._cache = cache
        self._remote = remote
        self._relearn = relearn
        self._deadline_s = deadline_s
        self._budget_bytes = budget_bytes
        self._standings = standings
        self.told: Callable[[str], None] = lambda _line: None
        self._reported: set[tuple[bytes, bytes, str]] = set()
        self._marked: set[tuple[bytes, bytes]] = set()
        self._local_reads = self._cache_reads = self._remote_reads = self._damaged = self._healed = 0
        self._reset()
        _instances.add(self)

    def chunk(self, id_: ChunkId, raw_size: int) -> bytes:
        """The plaintext of a chunk, exactly `raw_size` bytes, verified against its id.

        Raises:
            ChunkNotFoundError: no copy is known. ChunkCorruptedError: all copies are damaged.
            RemoteError: the only good copy may be at a remote that failed.
        """
        found = self._memory.get(id_)
        self._ahead.came(id_)
        if found is not None and len(found) == raw_size:
            return found
        search = Search(Kind.CHUNK, id_, raw_size)
        data = self._flights.run(id_, lambda: self._load(search), self._deadline_s)
        if len(data) != raw_size:
            msg = f"chunk {id_.hex()[:12]} has {len(data)} bytes, expected {raw_size}"
            raise ChunkCorruptedError(msg)
        return data

    def holds(self, id_: ChunkId) -> bool:
        """Whether the plaintext of a chunk is in memory."""
        return self._memory.holds(id_)

    def ahead(self, chunks: Sequence[ChunkRef], distance: int = 0, owner: object = None) -> None:
        """Start decoding chunks that will be wanted soon; returns at once. Arguments as `Ahead.want`."""
        self._ahead.want([chunk for chunk in chunks if not self._memory.holds(chunk.id)], distance, owner)

    def bring(self, chunks: Sequence[ChunkRef], distance: int = 0, owner: object = None) -> int:
        """Start fetching what only remotes have of some chunks and their bases, not decoded; returns at once.

        Args:
            chunks: in the order in which they will be wanted.
            distance: bytes between the reader and the first of them; the nearest ones of all readers come first.
            owner: for `cancel`.

        Returns:
            Stored bytes that are on their way, or came and were not read yet; 0 when all is here.
        """
        return 0 if self._remote is None else self._payloads.bring((c.id for c in chunks), distance, owner)

    def cancel(self, owner: object) -> None:
        """Forget what was wanted ahead for `owner` and has not begun."""
        self._ahead.cancel(owner)
        self._payloads.cancel(owner)

    def remember(self, id_: ChunkId, plaintext: bytes | memoryview) -> None:
        """Keep the plaintext of a chunk in the cache, because to decode it takes long."""
        if self._cache is not None:
            self._cache.put(id_, registry.RAW.code, len(plaintext), (), plaintext)

    def object(self, kind: Kind, id_: bytes) -> bytes:
        """The canonical bytes of a commit, tree or manifest, verified against its id.

        Raises:
            ObjectNotFoundError: no copy is known. ObjectCorruptedError: all copies are damaged.
            RemoteError: the only good copy may be at a remote that failed.
        """
        return self._flights.run(id_, lambda: self._load(Search(kind, id_, None)), self._deadline_s)

    def payload(self, kind: Kind, id_: bytes, *, is_exact: bool = False) -> tuple[Encoded, bytes]:
        """The best good copy of an id as it is stored, and its plaintext: for copies from pack to pack.

        Args:
            kind: of the id.
            id_: which.
            is_exact: ask a remote rather than take plaintext from the cache, which is several times as large.

        Raises:
            NotFoundError, IntegrityError, RemoteError: as `chunk` and `object`.
        """
        search = Search(kind, id_, None, as_stored=True, is_exact=is_exact)
        plaintext = self._from_anywhere(search)
        if plaintext is None or search.encoded is None:
            raise search.error()
        return search.encoded, plaintext

    def counters(self) -> Counters:
        """What this reader has done so far."""
        return Counters(
            self._memory.hits,
            self._local_reads,
            self._cache_reads,
            self._remote_reads,
            self.traffic.requests,
            self.traffic.bytes,
            self._flights.waits,
            self._damaged,
            self._healed,
            self._memory.used_bytes,
        )

    @property
    def ahead_bytes(self) -> AheadBytes:
        """What became of the chunks that were loaded ahead."""
        return self._memory.ahead_bytes

    @property
    def traffic(self) -> Traffic:
        """What remotes were asked for."""
        return self._payloads.traffic()

    def settle(self) -> bool:
        """Wait until the cache has all that came from remotes, but not longer than the deadline; whether it has."""
        return self._payloads.settle()

    def close(self) -> None:
        """Read nothing ahead any more and forget the plaintext in memory."""
        self._ahead.close()
        self._payloads.close()
        self._memory.clear()

    def _load_early(self, chunk: ChunkRef) -> None:
        """Have a chunk in memory that nobody wants yet."""
        if self._memory.holds(chunk.id) or self._flights.runs(chunk.id):
            return
        self._memory.expect(chunk.id, chunk.size)
        search = Search(Kind.CHUNK, chunk.id, chunk.size)
        try:
            self._flights.run(chunk.id, lambda: self._load(search), self._deadline_s)
        except ShardfsError:
            self._memory.give_up(chunk.id)
            raise

    # Copies in their order

    def _load(self, search: Search) -> bytes:
        data = self._from_anywhere(search)
        if data is None:
            error = search.error()
            if search.above is not None:
                search.above.is_tied |= search.is_tied
                search.lost.add(search.id, error, is_tied=search.is_tied)
            raise error
        if search.problems:
            with self._guard:
                self._healed += 1
        if search.kind is Kind.CHUNK:
            self._memory.put(search.id, data)
        return data

    def _from_anywhere(self, search: Search) -> bytes | None:
        known = self._store.find(search.id)
        here = [c for c in known if c.place == LOCAL]
        data = self._from_cache(search) if here and here[0].entry.bases and not search.as_stored else None
        if data is None:
            data = self._from_packs(search, here)
        if data is None and search.problems:
            # A gc may have moved the payload between the look into the index and the read.
            data = self._from_packs(search, [c for c in self._local(search) if c not in here])
        if data is None and search.problems and self._reconcile(search):
            data = self._from_packs(search, self._local(search))
        far = [c for c in known if c.place != LOCAL]
        if data is None and (coming := [c for c in far if self._payloads.has(c)]):
            data = self._from_remotes(search, coming)
        most = max((c.entry.stored_size for c in far), default=None) if search.is_exact else None
        if data is None:
            data = self._from_cache(search, most)
        if data is None:
            data = self._from_remotes(search, far)
        if data is None and most is not None:
            data = self._from_cache(search)
        if data is None and not here and search.remote_error is None and self._reconcile(search):
            data = self._from_packs(search, self._local(search))
        return data

    def _local(self, search: Search) -> list[Location]:
        return [c for c in self._store.find(search.id) if c.place == LOCAL]

    def _from_packs(self, search: Search, locations: Iterable[Location]) -> bytes | None:
        for location in locations:
            if self._doubted(search, location):
                continue
            try:
                data = self._decode(search, location.entry, partial(self._payload, location))
            except RemoteError as error:
                search.remote_error = error
            except _DAMAGE as error:
                self._note(search, location, str(error))
                if not isinstance(error.__cause__, OSError) and not search.is_inconclusive:
                    self._mark(search, location)
            else:
                with self._guard:
                    self._local_reads += 1
                if len(search.trail) == 1 and self._is_deep(location.entry):
                    self.remember(ChunkId(search.id), data)
                return data
        return None

    def _from_cache(self, search: Search, most: int | None = None) -> bytes | None:
        """From the cache, if it has a payload of no more than `most` bytes."""
        if self._cache is None or (found := self._cache.get(search.id)) is None:
            return None
        size = len(found.payload)
        if most is not None and size > most:
            return None
        entry = Entry(search.id, search.kind, found.codec, 0, size, found.raw_size, found.bases)
        try:
            if reason := copies.describes(entry, search.kind, search.raw_size):
                raise MalformedError(reason)
            data = self._decode(search, entry, lambda: found.payload)
        except RemoteError as error:
            search.remote_error = error
        except _DAMAGE as error:
            # A cache may lose anything: its damage is no reason to call the chunk damaged.
            _log.debug("%s: damaged in the cache: %s", search.name, error)
            self._cache.discard(search.id)
            with self._guard:
                self._damaged += 1
        else:
            with self._guard:
                self._cache_reads += 1
            return data
        return None

    def _from_remotes(self, search: Search, locations: Sequence[Location]) -> bytes | None:
        gone: set[str] = set()
        data = self._from_places(search, locations, gone)
        if data is None and gone and self._learned(search, gone):
            now = [c for c in self._store.find(search.id) if c.place in gone and c not in locations]
            data = self._from_places(search, now, gone)
        return data

    def _from_places(self, search: Search, locations: Iterable[Location], gone: set[str]) -> bytes | None:
        """From the first remote that gives it; adds those to `gone` that have packed it anew.

        A remote that keeps this waiting is left for the next one that has the chunk in another pack, and waited for
        again when no other one has given it.
        """
        if self._remote is None:
            return None
        sound = [location for location in locations if not self._doubted(search, location)]
        waiting = deque((copies, False) for copies in self._payloads.by_pack(sound))
        while waiting:
            copies, was_slow = waiting.popleft()
            if time.monotonic() - search.started > self._deadline_s:
                msg = f"{search.name} did not arrive within {self._deadline_s:g} s"
                search.remote_error = search.remote_error or RemoteTimeoutError(msg)
                break
            place = copies[0].place
            is_last = was_slow or all(other[0].place == place for other, _ in waiting)
            try:
                data = self._fetch(search, copies, is_last=is_last)
            except SlowError:
                waiting.append((copies, True))
            except RemoteError as error:
                search.remote_error = error
            except PackNotFoundError as error:
                search.problems.append(f"{error}; `shardfs fetch {place}` learns which packs it has now")
            except _DAMAGE as error:
                self._note(search, copies[-1], str(error))
            else:
                for late, _ in (late for late in waiting if late[1]):
                    self._payloads.distrust(late[0].place)
                return data
            gone.update(location.place for location in copies if self._payloads.is_gone(location))
        return None

    def _learned(self, search: Search, places: Iterable[str]) -> bool:
        """Whether remotes could be asked which packs they have; one answer does for all that wait for it."""
        if self._relearn is None:
            return False
        for place in places:
            with self._relearning:
                if self._relearned.get(place, float("-inf")) < search.started:
                    try:
                        self._relearn(place)
                    except (RemoteError, NotFoundError, StoreError) as error:
                        _log.warning("%s: its packs cannot be listed: %s", place, error)
                        return False
                    self._payloads.learned(place)
                    self._relearned[place] = time.monotonic()
        return True

    def _fetch(self, search: Search, copies: list[Location], *, is_last: bool) -> bytes:
        """From one of the remotes that have the same pack.

        A payload that came damaged is asked for alone: of the same remote once more, past caches on the way, then of
        the others. Caches on the way to these are passed when what comes is damaged, too: they may hold all there is.
        No remote is waited for long before all others were asked.
        """
        entry, came = copies[0].entry, Arrival(memoryview(b""), "")

        def coming() -> memoryview:
            nonlocal came
            came = self._payloads.get(copies[0], is_last=is_last)
            return came.payload

        with self._guard:
            self._remote_reads += 1
        try:
            return self._decode(search, entry, coming)
        except FormatError as error:
            self._payloads.reject(copies[0])
            failure: ShardfsError = error
        attempts = Attempts(copies, came.place)
        while attempts:
            left_s = max(0.0, self._deadline_s - (time.monotonic() - search.started)) / len(attempts)
            location, is_fresh, others = attempt = attempts.take()
            patience_s = self._payloads.patience_s(location, others) if others else left_s
            try:
                with deadline.limit(min(left_s, patience_s)), fresh.demanded() if is_fresh else nullcontext():
                    payload = self._payloads.get_alone(location).payload
                data = self._decode(search, entry, partial(_same, payload))
            except FormatError as error:
                failure = error
                if attempts.damaged(attempt):
                    self._payloads.distrust(location.place)
                    self._note(search, location, str(error))
            except (RemoteError, PackNotFoundError) as error:
                failure = error
                attempts.failed(attempt, error)
            else:
                if self._cache is not None:
                    self._cache.put(search.id, entry.codec, entry.raw_size, entry.bases, payload)
                return data
        raise failure

    def _source(self, place: str) -> PackSource:
        if self._remote is None:
            msg = f"no remote {place!r}"
            raise RefNotFoundError(msg)
        return self._remote(place)

    # One copy

    def _payload(self, location: Location) -> bytes | memoryview:
        return self._store.read(location).payload

    def _decode(self, search: Search, entry: Entry, read: Callable[[], bytes | memoryview]) -> bytes:
        """The plaintext of an entry whose description is possible; errors as `copies.decode` and `read`."""
        encoded = Encoded(entry.codec, read(), entry.bases)
        # Nothing is waited for while memory is reserved: others may need it to go on.
        bases = {id_: self._base(search, id_) for id_ in entry.bases}
        with self._memory.reserve(entry.raw_size + entry.stored_size):
            data = copies.decode(search.kind, search.id, encoded, entry.raw_size, bases.__getitem__)
        search.encoded = encoded
        return data

    def _base(self, search: Search, id_: bytes) -> bytes:
        """The plaintext of a base chunk.

        It joins no flight: threads that waited for each other's bases in a circle would wait for ever.
        """
        if id_ in search.trail or len(search.trail) > MAX_BASE_DEPTH:
            search.is_tied = True
            msg = f"base {id_.hex()[:12]} is in a circle or more than {MAX_BASE_DEPTH} deep"
            raise ChunkCorruptedError(msg)
        found = self._memory.get(id_)
        if found is not None:
            return found
        try:
            if (known := search.lost.get(id_)) is not None:
                raise known
            return self._load(Search(Kind.CHUNK, id_, None, search))
        except ShardfsError as error:
            search.base_error = error
            raise

    def _is_deep(self, entry: Entry) -> bool:
        """Whether an entry's bases have bases: one link takes 0.6 to 1.1 ms per MiB, a read from the cache 0.3."""
        return any(found[0].entry.bases for base in entry.bases if (found := self._store.find(base)))

    def _doubted(self, search: Search, location: Location) -> bool:
        reason = copies.doubt(location, search.kind, search.raw_size)
        if reason is not None:
            self._note(search, location, reason)
        return reason is not None

    def _note(self, search: Search, location: Location, reason: str) -> None:
        """Remember a damaged copy; the first time it is also logged."""
        pack = location.pack if isinstance(location.pack, bytes) else b""
        where = f"pack {pack.hex()[:12]}" + ("" if location.place == LOCAL else f" at {location.place}")
        problem = reason if where in reason else f"{where}: {reason}"
        if problem not in search.problems:  # a copy may be tried again
            search.problems.append(problem)
        if search.is_inconclusive or search.base_error is not None:  # a base that is lost has a line of its own
            return
        with self._guard:
            self._damaged += 1
            copy = search.id, pack, location.place
            first = copy not in self._reported and len(self._reported) < _MAX_REPORTED
            if first:
                self._reported.add(copy)
        if first:
            line = f"{search.name}: a copy is damaged, trying others: {problem}"
            _log.warning("%s", line)
            self.told(line)

    def _mark(self, search: Search, location: Location) -> None:
        """Have the content stored again when somebody adds it. Only for bytes that are wrong or lack a base.

        A disk that refused to be read, or too many open files, says nothing about the bytes.
        """
        key = (search.id, location.pack)
        if key not in self._marked and len(self._marked) < _MAX_REPORTED:
            self._marked.add(key)
            with suppress(ShardfsError):
                self._store.index.mark_damaged(*key)

    def _reconcile(self, search: Search) -> bool:
        """Mend the index from the packs' own tables; whether it is worth looking again."""
        with _reconcilers_guard:
            reconciler = _reconcilers.setdefault(self._store.layout.root, _Reconciler())
        return reconciler.run(self._store, search.started)

    def _reset(self) -> None:
        """Fresh locks: after a fork the threads that held the old ones do not exist."""
        self._guard = threading.Lock()
        self._relearning = threading.Lock()
        self._relearned: dict[str, float] = {}  # when the packs of a remote were learned, by its name
        self._memory = PlaintextMemory(self._budget_bytes, IDLE_S)
        self._flights = Flights()
        self._ahead = Ahead(self._load_early, self._memory.has_room_ahead)
        self._payloads = Payloads(
            self._store,
            self._cache,
            self._source,
            self._memory,
            deadline_s=self._deadline_s,
            limit_bytes=self._budget_bytes // PAYLOAD_SHARE,
            standings=self._standings,
        )


def _same(payload: memoryview) -> memoryview:
    return payload


class _Reconciler:
    """At most one comparison of index and packs per store, process and minute."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._finished = float("-inf")

    def run(self, store: Store, since: float) -> bool:
        with self._lock:
            if self._finished > since:
                return True
            if time.monotonic() - self._finished < RECONCILE_INTERVAL_S:
                return False
            try:
                return store.reconcile()
            except (StoreError, IntegrityError) as error:
                _log.warning("the index could not be compared with the packs: %s", error)
                return False
            finally:
                self._finished = time.monotonic()


_instances: weakref.WeakSet[Reader] = weakref.WeakSet()
_reconcilers: dict[Path, _Reconciler] = {}
_reconcilers_guard = threading.Lock()


def _after_fork() -> None:
    global _reconcilers_guard
    _reconcilers_guard = threading.Lock()
    _reconcilers.clear()
    for reader in list(_instances):
        reader._reset()


os.register_at_fork(after_in_child=_after_fork)
