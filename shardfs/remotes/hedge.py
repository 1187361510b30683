"""A second request for a small range when the first takes unusually long; the first good answer counts.

Most of what makes such a range late has nothing to do with the range: a lost packet, a busy disk, a server process that
collects garbage. Another connection is likely to be spared. It is asked when the first has taken longer than 95 of 100
lately; at most one request in twenty is such a second one, so that a server that is slow as a whole gets no more to do.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from itertools import count
from typing import Final

from shardfs import threads
from shardfs.errors import RemoteError, ShardfsError
from shardfs.formats.ids import PackId
from shardfs.remotes import cancelling, deadline, fresh
from shardfs.remotes.base import Remote
from shardfs.remotes.counters import Counters
from shardfs.remotes.forwarding import ForwardingRemote

SMALL: Final = 256 << 10  # bytes; larger ranges take their time because of their size
_SHARE: Final = 0.05  # second requests for each first one
_MOST_SAVED: Final = 5.0  # second requests that may go out in a row
_LEAST_S: Final = 0.01  # that somebody waits before it: less is what any system takes now and then
_RECENT: Final = 128  # answers by which the usual time is told
_LEAST_KNOWN: Final = 32
_EVERY: Final = 16  # answers between two looks at the usual time
_QUANTILE: Final = 0.95
_IDLE_S: Final = 10.0  # after which the thread that watches the time ends


class HedgedRemote(ForwardingRemote):
    """Wraps a remote whose reads can be cancelled.

    Args:
        inner: the remote to ask.
        counters: told of second requests.
    """

    def __init__(self, inner: Remote, counters: Counters) -> None:
        super().__init__(inner)
        self._counters = counters
        self._usual = _Usual()
        self._alarm = _Alarm()
        self._lock = threading.Lock()
        self._saved = 1.0

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        if length > SMALL or fresh.is_demanded():
            return super().read_pack(pack_id, offset, length)
        with self._lock:
            self._saved = min(_MOST_SAVED, self._saved + _SHARE)
        race = _Race(self, pack_id, offset, length)
        patience_s = self._usual.long_s
        if patience_s is not None:
            self._alarm.after(patience_s, race)
        data = race.run()
        self._usual.note(time.monotonic() - race.began)
        return data

    def may_hedge(self) -> bool:
        """Whether there is a second request left; then it is taken."""
        with self._lock:
            if self._saved < 1.0:
                return False
            self._saved -= 1.0
        self._counters.hedged += 1
        return True

    def read(self, race: _Race) -> bytes:
        """What a race is about, from the remote."""
        return self._inner.read_pack(race.pack_id, race.offset, race.length)

    def won(self) -> None:
        """A second request was answered first."""
        self._counters.hedges_won += 1


class _Race:
    """One range; the first request runs in the thread that wants it, the second in one of its own."""

    def __init__(self, remote: HedgedRemote, pack_id: PackId, offset: int, length: int) -> None:
        self.pack_id, self.offset, self.length = pack_id, offset, length
        self.began = time.monotonic()
        self._remote = remote
        self._left_s = deadline.remaining()
        self._lock = threading.Lock()
        self._first, self._second = cancelling.Call(), cancelling.Call()
        self._is_over = False
        self._second_ended: threading.Event | None = None  # None while there is no second request
        self._data: bytes | None = None  # what the second one brought in time

    def run(self) -> bytes:
        """The bytes.

        Raises:
            RemoteError: neither brought them; that of the first request.
        """
        try:
            with cancelling.within(self._first):
                data = self._remote.read(self)
        except RemoteError:
            if (late := self._from_second()) is not None:
                return late
            raise
        finally:
            with self._lock:
                self._is_over = True
            self._second.cancel()
        return data

    def is_late(self) -> None:
        """The first request has taken long: begin the second one."""
        with self._lock:
            if self._is_over or self._second_ended is not None or not self._remote.may_hedge():
                return
            self._second_ended = threading.Event()
        if threads.start(self._run_second, "hedge") is None:
            self._second_ended.set()

    def _run_second(self) -> None:
        assert self._second_ended is not None
        try:
            with deadline.limit(self._left_s - (time.monotonic() - self.began)), cancelling.within(self._second):
                data = self._remote.read(self)
        except ShardfsError:
            return  # the first one tells what is wrong
        else:
            with self._lock:
                if self._is_over:
                    return
                self._data = data
            self._remote.won()
            self._first.cancel()
        finally:
            self._second_ended.set()

    def _from_second(self) -> bytes | None:
        with self._lock:
            ended = self._second_ended
        if ended is not None:
            ended.wait()  # it ends in bounded time, as any request
        return self._data


class _Usual:
    """How long answers took lately."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)
        self._noted = 0
        self.long_s: float | None = None  # longer than most take; None while too few are known

    def note(self, seconds: float) -> None:
        self._recent.append(seconds)
        self._noted += 1
        if self._noted % _EVERY == 0 and self._noted >= _LEAST_KNOWN:
            known = sorted(self._recent.copy())
            self.long_s = max(_LEAST_S, known[int(_QUANTILE * len(known))])


class _Alarm:
    """Calls races when their time has come; its thread lives while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._set: list[tuple[float, int, _Race]] = []
        self._order = count()
        self._thread: threading.Thread | None = None

    def after(self, seconds: float, race: _Race) -> None:
        due = time.monotonic() + seconds
        with self._changed:
            heapq.heappush(self._set, (due, next(self._order), race))
            if self._thread is None or not self._thread.is_alive():  # after a fork it is not
                self._thread = threads.start(self._run, "alarm")
            elif self._set[0][0] == due:
                self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._set:
                    if not self._changed.wait(_IDLE_S) and not self._set:
                        self._thread = None
                        return
                left = self._set[0][0] - time.monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                race = heapq.heappop(self._set)[2]
            race.is_late()
