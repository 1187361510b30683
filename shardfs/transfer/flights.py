"""One fetch per id at a time: who comes later waits for the result of who came first.

A deadline that passed is remembered for a moment: a kernel whose readahead failed asks for the same bytes again at
once, and a program would wait for two deadlines.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from shardfs.errors import RemoteTimeoutError, ShardfsError

REMEMBERED_S: Final = 1.0  # the second request of the kernel comes within milliseconds
_MAX_REMEMBERED: Final = 1000


class _Flight:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.result: bytes | None = None
        self.error: ShardfsError | None = None


class Flights:
    """Shares results and errors of running fetches between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[bytes, _Flight] = {}
        self._late: dict[bytes, tuple[float, RemoteTimeoutError]] = {}
        self.waits = 0

    def run(self, key: bytes, work: Callable[[], bytes], timeout_s: float) -> bytes:
        """The result of `work`, or that of another thread that runs it for the same key already.

        Raises:
            ShardfsError: what `work` raised, here or in the other thread.
            RemoteTimeoutError: the other thread did not finish within `timeout_s`.
        """
        while True:
            with self._lock:
                late = self._late.get(key)
                if late is not None and time.monotonic() < late[0]:
                    raise late[1]
                flight = self._running.get(key)
                if flight is None:
                    mine = self._running[key] = _Flight()
                    break
                self.waits += 1
            if not flight.done.wait(timeout_s):
                msg = f"{key.hex()[:12]} did not arrive within {timeout_s:g} s"
                raise RemoteTimeoutError(msg)
            if flight.error is not None:
                raise flight.error
            if flight.result is not None:
                return flight.result
            # The other thread was interrupted (KeyboardInterrupt, MemoryError): that says nothing about the id.
        return self._lead(key, mine, work)

    def runs(self, key: bytes) -> bool:
        """Whether a thread fetches it now."""
        return key in self._running

    def _lead(self, key: bytes, flight: _Flight, work: Callable[[], bytes]) -> bytes:
        try:
            flight.result = work()
        except ShardfsError as error:
            flight.error = error
            if isinstance(error, RemoteTimeoutError):
                self._remember(key, error)
            raise
        finally:
            with self._lock:
                del self._running[key]
            flight.done.set()
        return flight.result

    def _remember(self, key: bytes, error: RemoteTimeoutError) -> None:
        now = time.monotonic()
        with self._lock:
            if len(self._late) >= _MAX_REMEMBERED:
                self._late = {k: late for k, late in self._late.items() if late[0] > now}
            if len(self._late) < _MAX_REMEMBERED:
                self._late[key] = now + REMEMBERED_S, error
