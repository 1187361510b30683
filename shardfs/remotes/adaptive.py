"""How many requests to a remote are out at once: as many as make it faster, few when it has trouble.

The limit begins where links of 1 Gbit/s are full. While callers wait, a quarter more are let out for a moment; they
stay if that brought an eighth more bytes per second, and are taken back if not. Every sign of trouble (429, 503,
time-outs, broken connections) halves it; then it grows by one in each half second without trouble.

Callers are let out in the order in which they came, those in the foreground before those `in_background()`.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from shardfs.formats.ids import PackId
from shardfs.remotes import deadline
from shardfs.remotes.base import Remote
from shardfs.remotes.breaker import Breaker
from shardfs.remotes.counters import Counters
from shardfs.remotes.forwarding import ForwardingRemote

FIRST: Final = 16  # requests; what servers and proxies take from one client without objecting
MOST: Final = 32
_STEP: Final = 4  # of so many requests one more is tried
_GAIN: Final = 1.125  # times the bytes per second that a step must bring to be kept: half of what it could
_WINDOW_S: Final = 0.5  # over which bytes per second are measured
_REST: Final = 20  # windows after a step that brought nothing
_CALM_S: Final = 1.0  # between two cuts: what was out before the first one tells nothing new

_local = threading.local()


@contextmanager
def in_background() -> Iterator[None]:
    """Let others before this thread, which asks for what nobody waits for."""
    before = getattr(_local, "in_background", False)
    _local.in_background = True
    try:
        yield
    finally:
        _local.in_background = before


class Window:
    """The limit of one remote, and who waits because of it. Safe to share between threads.

    Args:
        counters: told the state.
        most: never let more out.
        clock: seconds; for tests.
    """

    def __init__(self, counters: Counters, most: int = MOST, clock: Callable[[], float] = time.monotonic) -> None:
        self._counters = counters
        self._most = min(most, MOST)
        self._usual = min(FIRST, self._most)
        self._clock = clock
        self._lock = threading.Lock()
        self._limit = self._usual
        self._out = 0
        self._waiting: tuple[deque[threading.Event], deque[threading.Event]] = (deque(), deque())
        self._cut_at = float("-inf")
        self._begun, self._bytes, self._was_full = self._clock(), 0, False
        self._limit_before = self._limit
        self._rate_before: float | None = None  # bytes per second before the step that is being tried
        self._rest = 0
        self._tell()

    def enter(self) -> float:
        """Wait until a request may go out; returns the seconds that this took.

        The wait needs no limit of its own: each request that is out ends in bounded time.
        """
        is_behind = bool(getattr(_local, "in_background", False))
        with self._lock:
            if self._out < self._limit and not self._waiting[0] and not (is_behind and self._waiting[1]):
                self._out += 1
                self._was_full |= self._out >= self._limit
                self._tell()
                return 0.0
            turn = threading.Event()
            self._waiting[is_behind].append(turn)
            self._was_full = True
            self._tell()
        began = self._clock()
        try:
            turn.wait()
        except BaseException:
            self._give_up(turn)
            raise
        return self._clock() - began

    def leave(self, size: int) -> None:
        """A request ended, having brought or sent so many bytes."""
        with self._lock:
            self._out -= 1
            self._bytes += size
            self._judge()
            self._let_out()

    def trouble(self) -> None:
        """The remote had trouble with what is out."""
        with self._lock:
            now = self._clock()
            if now - self._cut_at < _CALM_S:
                return
            self._cut_at = now
            self._limit = max(1, self._limit // 2)
            self._counters.cuts += 1
            self._rate_before, self._rest = None, _REST
            self._begin(now)
            self._tell()

    def _give_up(self, turn: threading.Event) -> None:
        with self._lock:
            if turn.is_set():
                self._out -= 1
            else:
                next(queue for queue in self._waiting if turn in queue).remove(turn)
            self._let_out()

    def _judge(self) -> None:
        now = self._clock()
        elapsed = now - self._begun
        if elapsed < _WINDOW_S:
            return
        rate, was_full = self._bytes / elapsed, self._was_full
        self._begin(now)
        if not was_full or now - self._cut_at < _CALM_S:
            return
        if self._limit < self._usual:
            self._limit += 1
        elif self._rate_before is not None and rate < _GAIN * self._rate_before:
            self._limit, self._rate_before, self._rest = self._limit_before, None, _REST
        elif self._rest > 0:
            self._rest -= 1
        elif self._limit < self._most:
            self._limit_before, self._rate_before = self._limit, rate
            self._limit = min(self._most, self._limit + max(1, self._limit // _STEP))
        else:
            self._rate_before = None

    def _begin(self, now: float) -> None:
        self._begun, self._bytes, self._was_full = now, 0, self._out >= self._limit

    def _let_out(self) -> None:
        while self._out < self._limit and (queue := self._waiting[0] or self._waiting[1]):
            queue.popleft().set()
            self._out += 1
        self._tell()

    def _tell(self) -> None:
        self._counters.limit, self._counters.in_flight = self._limit, self._out
        self._counters.waiting = len(self._waiting[0]) + len(self._waiting[1])


class AdaptiveRemote(ForwardingRemote):
    """Wraps a remote; ranges and packs go through a window, small questions pass it by.

    Args:
        inner: the remote to ask.
        window: of this remote.
        breaker: of this remote.
        counters: of this remote.

    Attributes:
        counters: what became of its requests.
    """

    def __init__(self, inner: Remote, window: Window, breaker: Breaker, counters: Counters) -> None:
        super().__init__(inner)
        self._window = window
        self._breaker = breaker
        self.counters = counters

    @property
    def available(self) -> bool:
        """Whether the remote is asked now; False while it is left alone because it failed, or said so."""
        return self._breaker.available

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        with self._turn(length):
            return super().read_pack(pack_id, offset, length)

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`."""
        with in_background(), self._turn(path.stat().st_size if path.is_file() else 0):
            super().put_pack(path, pack_id)

    @contextmanager
    def _turn(self, size: int) -> Iterator[None]:
        """A turn of the window; time spent in the queue of this program is none that the remote took."""
        waited = self._window.enter()
        moved = 0
        try:
            with deadline.extended(waited):
                yield
            moved = size
        finally:
            self._window.leave(moved)
