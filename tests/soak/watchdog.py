"""No operation may hang: what takes too long ends with the daemons, which log what they were doing."""

from __future__ import annotations

import faulthandler
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LIMIT_S = 120.0  # the longest operation, an optimize of everything, takes a few seconds on a busy machine


class Watchdog:
    """Watches one operation after the other.

    Attributes:
        bitten: what hung, or "".
    """

    def __init__(self, abort: Callable[[], None], limit_s: float = LIMIT_S) -> None:
        self.bitten = ""
        self._abort = abort
        self._limit_s = limit_s
        self._doing: tuple[str, float] | None = None
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Watch a block."""
        self._doing = what, time.monotonic()
        try:
            yield
        finally:
            self._doing = None
            if self.bitten:
                msg = f"{self.bitten} took longer than {self._limit_s:.0f} s"
                raise TimeoutError(msg)

    def close(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(1):
            doing = self._doing
            if doing is not None and time.monotonic() - doing[1] > self._limit_s:
                self.bitten = doing[0]
                faulthandler.dump_traceback(2)
                self._abort()
                return
