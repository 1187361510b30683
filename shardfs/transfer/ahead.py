"""Chunks that somebody will want soon, loaded in the background: what is wanted first comes first."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

from shardfs import threads
from shardfs.formats.ids import ChunkId
from shardfs.formats.manifest import ChunkRef

DECODERS: Final = 2  # decoding releases the GIL; more threads than cores only take it from those who answer
MAX_PENDING: Final = 512  # chunks of all readers; what does not fit is read when it is wanted
_IDLE_S: Final = 5.0  # for which a thread waits for more


class Ahead:
    """Loads chunks in the background. Safe to share between threads; close() once."""

    def __init__(
        self,
        load: Callable[[ChunkRef], object],
        has_room: Callable[[int], bool] = lambda _size: True,
        most: int = DECODERS,
    ) -> None:
        """Load with `load`; its result goes where the reader that wants it will look.

        Args:
            load: loads one chunk.
            has_room: whether so many bytes may be loaded now. What has no room is read when it is wanted.
            most: chunks that are loaded at once.
        """
        self._load = load
        self._has_room = has_room
        self._most = most
        self._heap: list[tuple[int, int, ChunkRef]] = []
        self._pending: dict[ChunkId, object] = {}  # not begun: for whom
        self._order = count()
        self._threads = self._waiting = 0
        self._turn = threading.Condition(threading.Lock())
        self._closed = False

    def want(self, chunks: Sequence[ChunkRef], distance: int = 0, owner: object = None) -> None:
        """Start loading chunks that are not queued yet; returns at once and never fails.

        Args:
            chunks: in the order in which they will be wanted.
            distance: bytes between the reader and the first of them; the nearest ones of all readers are loaded first.
            owner: for `cancel`.
        """
        with self._turn:
            for chunk in chunks:
                if self._closed or len(self._pending) >= MAX_PENDING:
                    return
                if chunk.id not in self._pending:
                    self._pending[chunk.id] = owner
                    heapq.heappush(self._heap, (distance, next(self._order), chunk))
                    self._turn.notify()
                    if len(self._pending) > self._waiting and self._threads < self._most:
                        self._threads += threads.start(self._work, "ahead") is not None
                distance += chunk.size

    def came(self, id_: ChunkId) -> None:
        """Somebody wants a chunk now: it is not loaded ahead any more."""
        self._pending.pop(id_, None)

    def cancel(self, owner: object) -> None:
        """Forget what was wanted for `owner` and has not begun."""
        with self._turn:
            self._pending = {id_: other for id_, other in list(self._pending.items()) if other is not owner}

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        with self._turn:
            self._closed = True
            self._heap.clear()
            self._pending.clear()
            self._turn.notify_all()

    def _work(self) -> None:
        while (chunk := self._next()) is not None:
            if self._has_room(chunk.size):
                with suppress(Exception):  # who really wants it gets the error
                    self._load(chunk)

    def _next(self) -> ChunkRef | None:
        """The nearest chunk; None when there was none for a while, and the thread has to end."""
        with self._turn:
            while not self._closed:
                while self._heap:
                    _, _, chunk = heapq.heappop(self._heap)
                    if self._pending.pop(chunk.id, self) is not self:
                        return chunk
                self._waiting += 1
                is_awake = self._turn.wait(_IDLE_S)
                self._waiting -= 1
                if not is_awake and not self._heap:
                    break
            self._threads -= 1
            return None
