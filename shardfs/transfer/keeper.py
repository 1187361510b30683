"""What came from remotes is written to the cache by a thread of its own: no reader waits for the disk."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from shardfs import threads

_log = logging.getLogger(__name__)

_LAST_S: Final = 60.0  # for the one that is being written: to take the cache away from it would end the process
_IDLE_S: Final = 10.0  # after which the thread ends


class Parcel(NamedTuple):
    """What is to be written.

    Attributes:
        size: bytes in memory.
        write: puts it into the cache.
        is_spare: whether it may be dropped, because whoever asked for it has it.
        done: called when it is written, or dropped.
    """

    size: int
    write: Callable[[], None]
    is_spare: Callable[[], bool]
    done: Callable[[], None]


class Keeper:
    """Writes one parcel after the other. Safe to share between threads.

    Attributes:
        dropped: bytes that were not written, because the disk is slower than the remote.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Drop what is spare while more than `limit_bytes` wait."""
        self._limit_bytes = limit_bytes
        self._changed = threading.Condition(threading.Lock())
        self._waiting: deque[Parcel] = deque()
        self._bytes = 0  # of what waits or is being written
        self._runs = self._closed = False
        self.dropped = 0

    def add(self, parcel: Parcel) -> None:
        """Have a parcel written; returns at once."""
        with self._changed:
            is_closed = self._closed
            if not is_closed:
                self._waiting.append(parcel)
                self._bytes += parcel.size
                self._changed.notify_all()
                self._runs = self._runs or threads.start(self._run, "keeper") is not None
        if is_closed:
            parcel.done()

    def settle(self, timeout_s: float) -> bool:
        """Wait until all of it is written; whether it is, after `timeout_s` seconds at the latest."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._bytes, timeout_s)

    def close(self, timeout_s: float) -> None:
        """Take no more, and wait for what is here as `settle` does. What then is left is dropped."""
        with self._changed:
            self._closed = True
        if not self.settle(timeout_s):
            with self._changed:
                left, self._waiting = self._waiting, deque()
                self._bytes -= sum(parcel.size for parcel in left)
                self.dropped += sum(parcel.size for parcel in left)
            for parcel in left:
                parcel.done()
            self.settle(_LAST_S)

    def _run(self) -> None:
        while (parcel := self._next()) is not None:
            try:
                if self._bytes > self._limit_bytes and parcel.is_spare():
                    self.dropped += parcel.size
                else:
                    parcel.write()
            except Exception:  # noqa: BLE001 - the next one may be written
                _log.exception("%d bytes were not written to the cache", parcel.size)
            parcel.done()
            with self._changed:
                self._bytes -= parcel.size
                self._changed.notify_all()
            del parcel  # and with it what came, which may be let go while this waits

    def _next(self) -> Parcel | None:
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting, _IDLE_S):
                self._runs = False
                return None
            return self._waiting.popleft()
