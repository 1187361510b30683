"""Ranges of packs, asked of one remote after the other until one of them has given the bytes.

The next one is asked when one fails, and also when it keeps somebody waiting for much longer than is usual: then the
first that answers counts. So a read ends well while any remote has the pack and answers.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

from shardfs.errors import (
    PackNotFoundError,
    RemoteError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    ShardfsError,
)
from shardfs.formats.ids import PackId
from shardfs.formats.pack import Entry
from shardfs.remotes import deadline
from shardfs.store.index import LOCAL, Location
from shardfs.transfer.couriers import Couriers, Job
from shardfs.transfer.ranges import Range
from shardfs.transfer.standings import Standings

_PROBE_SIZE: Final = 4096  # bytes that show whether a remote is back
_SHARE: Final = 4  # of the deadline, one part in so many is for a remote that is not the only one


class PackSource(Protocol):
    """The part of a remote that reading needs."""

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """Exactly `length` bytes of a pack.

        Raises:
            RemoteError: else, in bounded time.
        """
        ...


class SlowError(RemoteTimeoutError):
    """All remotes that have a pack were asked and none has answered within the patience; they may answer yet."""


class Request:
    """One range on its way, or in memory until all of its payloads were taken.

    Attributes:
        done: set when `data` has the bytes, or `error` says why nobody gave them.
        source: the remote that gave them.
        asked: remotes that were asked.
    """

    def __init__(self, pack: PackId, span: Range, places: Sequence[str], until: float | None, owner: object) -> None:
        """A request that nobody was asked yet.

        Args:
            pack: the pack.
            span: which bytes of it.
            places: remotes that have it, in the order of asking; at least one.
            until: monotonic time after which it is not worth starting.
            owner: for whom it is made ahead.
        """
        self.pack, self.span, self.until, self.owner = pack, span, until, owner
        self.untaken = {entry.id for entry in span.entries}
        self.done = threading.Event()
        self.is_stored = threading.Event()  # the cache has what it keeps of it
        self.data = b""
        self.source = ""
        self.error: ShardfsError | None = None
        self.asked: list[str] = []
        self.left = list(places)  # not asked yet
        self.asked_at = 0.0  # when the last one was
        self.jobs: dict[str, Job] = {}  # of those that were asked and have not answered
        self.spared: set[str] = set()  # put back once because they were down

    @property
    def place(self) -> str:
        """Who was asked last, or will be asked first."""
        return self.asked[-1] if self.asked else self.left[0]

    def covers(self, entry: Entry) -> bool:
        """Whether the payload of an entry is in it."""
        return self.span.start <= entry.offset and entry.offset + entry.stored_size <= self.span.end

    def payload(self, entry: Entry) -> memoryview:
        """The payload of an entry that it covers, once it is done."""
        begin = entry.offset - self.span.start
        return memoryview(self.data)[begin : begin + entry.stored_size]


class Requests:
    """Sends requests where they are answered. Safe to share between threads.

    Attributes:
        moved: ranges that another remote was asked for than the first.
    """

    def __init__(
        self,
        remote: Callable[[str], PackSource],
        standings: Standings,
        *,
        deadline_s: float,
        has_room: Callable[[], bool],
        ended: Callable[[Request], None],
        charge: Callable[[int], None],
        count: Callable[..., None],
    ) -> None:
        """Send to remotes by name.

        Args:
            remote: opens one.
            standings: which to prefer.
            deadline_s: seconds after which an answer is not waited for any more.
            has_room: whether what is asked for ahead can be kept when it comes.
            ended: told of each request that has its bytes or its error, before those who wait for it.
            charge: told how many bytes more are on their way or came, or fewer when it is negative. What came with
                `source` set stays charged.
            count: told what to add to `Traffic`.
        """
        self._remote = remote
        self._standings = standings
        self._deadline_s = deadline_s
        self._ended = ended
        self._charge = charge
        self._count = count
        self._lock = threading.Lock()
        self._couriers: defaultdict[str, Couriers] = defaultdict(lambda: Couriers(has_room))
        self._gone: set[tuple[str, PackId]] = set()
        self.moved = 0

    # Who

    def ranked(self, pack: PackId, places: Iterable[str]) -> list[str]:
        """Remotes that are said to have a pack in the order of asking, without those that have it no longer."""
        far = [place for place in dict.fromkeys(places) if place != LOCAL]
        if len(far) < 2:
            return far
        there = [place for place in far if (place, pack) not in self._gone] or far
        return sorted(there, key=self.rank)

    def rank(self, place: str) -> tuple[bool, tuple[bool, int, str]]:
        """What sorts remotes: one that says that it cannot be reached now comes last."""
        try:
            is_up = getattr(self._remote(place), "available", True)
        except ShardfsError:
            is_up = False
        return not is_up, self._standings.rank(place)

    def is_gone(self, place: str, pack: PackId) -> bool:
        """Whether a remote said that it has a pack no longer."""
        return (place, pack) in self._gone

    def learned(self, place: str) -> None:
        """The packs of a remote are known anew."""
        with self._lock:
            self._gone = {known for known in self._gone if known[0] != place}

    def distrust(self, place: str) -> None:
        """A remote gave wrong bytes, or was overtaken."""
        self._standings.failed(place)

    def look_again(self, locations: Iterable[Location]) -> None:
        """See whether those remotes are back that were down long enough, by a few bytes each; returns at once."""
        for location in locations:
            if self._standings.is_down(location.place) and self._standings.is_due(location.place):
                self._couriers[location.place].send(Job(partial(self._look, location), _nothing))

    # Asking

    def send(self, request: Request) -> None:
        """Somebody waits for a request: it is made as soon as possible."""
        waiting = [(place, job) for place, job in list(request.jobs.items()) if not job.is_taken]
        if not request.asked:
            self._ask_next(request)
        elif waiting:
            request.asked_at = time.monotonic()  # until now nobody waited
            for place, job in waiting:
                self._couriers[place].send(job)

    def send_ahead(self, request: Request, distance: int) -> None:
        """Make a request when nobody waits for others; the least distance first."""
        self._ask_next(request, distance)

    def wait(self, request: Request, *, is_last: bool = True) -> None:
        """Return when a request is done.

        Args:
            request: that was sent.
            is_last: there is no other copy of what it brings.

        Raises:
            RemoteTimeoutError: it was not begun before the deadline. SlowError: as it says, unless `is_last`.
        """
        until = time.monotonic() + self._deadline_s
        while not request.done.is_set():
            hurries = bool(request.left) or not is_last
            left = self._patience_left(request) if hurries else self._deadline_s
            if request.done.wait(left):
                return
            if self._patience_left(request) > 0 and hurries:
                continue  # another was asked meanwhile
            if request.left and self._ask_next(request):
                continue
            if not is_last:
                msg = f"{request.place} has not answered yet"
                raise SlowError(msg)
            if not any(job.is_taken for job in list(request.jobs.values())) and time.monotonic() >= until:
                raise self._too_late(request.place)

    def read(self, place: str, pack: PackId, span: Range) -> bytes:
        """The bytes of a range from one remote, now.

        Raises:
            ShardfsError: it failed, or there is no such remote.
        """
        started = time.monotonic()
        try:
            data = _exactly(span.size, self._remote(place).read_pack(pack, span.start, span.size)) if span.size else b""
        except BaseException as error:
            self._count(requests=1, failed=1)
            self._note(place, pack, error)
            raise
        self._standings.came(place, span.size, time.monotonic() - started)
        return data

    def patience_s(self, place: str, others: Sequence[str], size: int) -> float:
        """Seconds to wait for `size` bytes of a remote before one of the others is asked."""
        return self._standings.patience_s(place, others, size, self._deadline_s)

    def cancel(self, owner: object = None) -> None:
        """Forget what was sent ahead for `owner` (None: for anybody) and is not on its way."""
        for couriers in list(self._couriers.values()):
            couriers.cancel(owner)

    def go_on(self) -> None:
        """There may be room again for what was sent ahead."""
        for couriers in list(self._couriers.values()):
            couriers.go_on()

    @property
    def peak(self) -> int:
        """Most requests to one remote at the same time."""
        return max((couriers.peak for couriers in list(self._couriers.values())), default=0)

    def _ask_next(self, request: Request, distance: int | None = None) -> bool:
        """Ask the next remote for a range; whether there was one."""
        with self._lock:
            if request.done.is_set() or not request.left:
                return False
            place = request.left.pop(0)
            self.moved += bool(request.asked)
            request.asked.append(place)
            request.asked_at = time.monotonic()
            job = Job(partial(self._run, request, place), partial(self._dropped, request, place), request.owner)
            request.jobs[place] = job
        try:
            if distance is None:
                self._couriers[place].send(job)
            else:
                self._couriers[place].send_ahead(job, distance)
        except RemoteUnavailableError as error:  # the system allows no thread
            self._couriers[place].revoke(job)
            self._failed(request, place, error)
        return True

    def _patience_left(self, request: Request) -> float:
        patience = self.patience_s(request.place, request.left, request.span.size)
        return max(0.0, request.asked_at + patience - time.monotonic())

    # On the threads of the couriers

    def _run(self, request: Request, place: str) -> None:
        if request.done.is_set() or self._is_spared(request, place):
            return
        request.asked_at = time.monotonic()
        self._charge(request.span.size)
        try:
            data = self._read_in_time(request, place)
        except Exception as error:  # noqa: BLE001 - who waits must hear of everything
            self._charge(-request.span.size)
            told = error if isinstance(error, ShardfsError) else RemoteError(f"{place}: {error!r}")
            self._failed(request, place, told)
        else:
            self._came(request, place, data)

    def _is_spared(self, request: Request, place: str) -> bool:
        """Whether a remote went down while the request waited for its turn there, and another one is asked first."""
        if not self._standings.is_down(place) or place in request.spared or not request.left:
            return False
        with self._lock:
            request.spared.add(place)
            request.jobs.pop(place, None)
            request.asked.remove(place)
            request.left.append(place)
        self._ask_next(request)
        return True

    def _read_in_time(self, request: Request, place: str) -> bytes:
        left = self._deadline_s if request.until is None else request.until - time.monotonic()
        if left <= 0:
            raise self._too_late(place)
        if request.left:
            left = min(left, self._deadline_s / _SHARE)
        with deadline.limit(left):
            return self.read(place, request.pack, request.span)

    def _came(self, request: Request, place: str, data: bytes) -> None:
        with self._lock:
            is_first = not request.done.is_set() and not request.source
            if is_first:
                request.source, request.data, request.error = place, data, None
            request.jobs.pop(place, None)
            slower = list(request.jobs.items())
            request.jobs.clear()
            request.left.clear()
        if not is_first:
            self._charge(-request.span.size)
            self._count(requests=1, bytes=len(data))
            return
        for other, job in slower:
            if not self._couriers[other].revoke(job):
                self._standings.failed(other)
        self._ended(request)
        request.done.set()

    def _failed(self, request: Request, place: str, error: ShardfsError) -> None:
        with self._lock:
            request.jobs.pop(place, None)
            before = request.error
            if before is None or isinstance(before, PackNotFoundError):
                request.error = error  # a remote that may be back says more than one that has the pack no longer
            elif not isinstance(error, PackNotFoundError):
                before.args = (f"{before}; {error}",)
        if not self._ask_next(request):
            self._give_up(request)

    def _dropped(self, request: Request, place: str) -> None:
        with self._lock:
            request.jobs.pop(place, None)
            request.left.clear()
            request.error = request.error or RemoteUnavailableError("it was not wanted any more")
        self._give_up(request)

    def _give_up(self, request: Request) -> None:
        with self._lock:
            is_over = not request.jobs and not request.left and not request.done.is_set() and not request.source
        if is_over:
            self._ended(request)
            request.done.set()

    def _note(self, place: str, pack: PackId, error: BaseException) -> None:
        if isinstance(error, PackNotFoundError):
            self._standings.is_there(place)
            with self._lock:
                self._gone.add((place, pack))
        elif isinstance(error, RemoteError):
            self._standings.failed(place)

    def _look(self, location: Location) -> None:
        entry = location.entry
        span = Range(entry.offset, entry.offset + min(entry.stored_size, _PROBE_SIZE), ())
        try:
            with deadline.limit(self._deadline_s / _SHARE):
                data = self.read(location.place, location.pack, span)
        except ShardfsError:
            return
        self._count(requests=1, bytes=len(data))

    def _too_late(self, place: str) -> RemoteTimeoutError:
        return RemoteTimeoutError(f"{place} timed out after {self._deadline_s:g} s: other requests to it came first")


def _exactly(size: int, data: bytes) -> bytes:
    if len(data) != size:
        msg = f"the remote gave {len(data)} bytes of a pack, asked for {size}"
        raise RemoteProtocolError(msg)
    return data


def _nothing() -> None:
    pass
