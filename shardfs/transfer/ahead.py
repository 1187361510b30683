"""Chunks that a sequential reader will want next, decoded while it copies the ones before."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Final

from shardfs.errors import ShardfsError
from shardfs.formats.ids import ChunkId
from shardfs.formats.manifest import ChunkRef

WORKERS: Final = 2  # decoding releases the GIL; more threads than cores only take it from those who answer
MAX_PENDING: Final = 16  # chunks of all readers; what does not fit is read when it is wanted


class Ahead:
    """Loads chunks in the background. Safe to share between threads; close() once."""

    def __init__(self, load: Callable[[ChunkId, int], bytes]) -> None:
        """Use `load` to read; its result goes where the reader that wants it will look."""
        self._load = load
        self._queue: SimpleQueue[ChunkRef | None] = SimpleQueue()
        self._pending: set[ChunkId] = set()
        self._workers = 0
        self._lock = threading.Lock()
        self._closed = False

    def want(self, chunks: Sequence[ChunkRef]) -> None:
        """Start loading chunks that are not on their way yet; returns at once and never fails."""
        for chunk in chunks:
            with self._lock:
                if self._closed or chunk.id in self._pending or len(self._pending) >= MAX_PENDING:
                    continue
                self._pending.add(chunk.id)
                if self._workers < min(WORKERS, len(self._pending)):
                    self._workers += 1
                    # Daemons: a program that ends while a remote is silent does not wait for it.
                    threading.Thread(target=self._work, name="shardfs-ahead", daemon=True).start()
            self._queue.put(chunk)

    def close(self) -> None:
        """Start nothing more; what runs ends by itself."""
        with self._lock:
            self._closed = True
        for _ in range(self._workers):
            self._queue.put(None)

    def _work(self) -> None:
        while (chunk := self._queue.get()) is not None:
            if not self._closed:
                with suppress(ShardfsError):  # who really wants it gets the error
                    self._load(chunk.id, chunk.size)
            with self._lock:
                self._pending.discard(chunk.id)
