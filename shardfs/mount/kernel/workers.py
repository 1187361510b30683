"""Threads for requests that may have to wait: for a decoder, a lock, a disk or a remote."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Final

from shardfs import threads
from shardfs.mount.kernel.request import Request

USUAL: Final = 2  # threads that compute only take the interpreter from each other
MOST: Final = 64  # requests that can wait for a remote before others have to wait with them
IDLE_S: Final = 30.0  # without a request, after which a thread that is not usual ends, and closes its databases
STUCK_S: Final = 0.02  # a queue that nobody took anything from for so long: all threads wait


class Workers:
    """A pool that stays small while its threads compute, grows while they wait, and shrinks when it was of no use."""

    def __init__(self, serve: Callable[[Request], None]) -> None:
        """Args: serve: answers a request; raises nothing."""
        self._serve = serve
        self._queue: SimpleQueue[Request | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._count = 0
        self._taken = 0  # requests ever taken; threads may race for it, it only has to change
        self._seen = (0, 0.0)  # that number, and since when

    @property
    def are_behind(self) -> bool:
        """Whether requests wait for a thread."""
        return not self._queue.empty()

    def put(self, request: Request) -> None:
        """Have a request served. Only one thread may call this and `relieve`."""
        self._queue.put(request)
        if self._count < USUAL:
            self._start()

    def relieve(self) -> None:
        """Add a thread if requests wait and none was taken for STUCK_S."""
        now = time.monotonic()
        taken, since = self._seen
        if taken != self._taken or not self.are_behind:
            self._seen = (self._taken, now)
        elif now - since >= STUCK_S and self._count < MOST:
            self._seen = (taken, now)
            self._start()

    def stop(self) -> None:
        """Take no more. Threads that wait for something end with the process."""
        for _ in range(self._count):
            self._queue.put(None)

    def _start(self) -> None:
        with self._guard:
            self._count += threads.start(self._work, "worker") is not None

    def _work(self) -> None:
        while True:
            try:
                request = self._queue.get(timeout=IDLE_S)
            except Empty:
                if self._may_end():
                    return
                continue
            if request is None:
                return
            self._taken += 1
            self._serve(request)

    def _may_end(self) -> bool:
        with self._guard:
            if self._count <= USUAL:
                return False
            self._count -= 1
            return True
