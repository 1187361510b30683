"""One file that is being read: what its readers will want, and the order in which they read."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.prefetch.cursors import NEAR, Cursors
from shardfs.prefetch.extents import Extents
from shardfs.prefetch.order import Follower, Order, order_of
from shardfs.prefetch.want import Want

LEAST_SHARE: Final = 16  # an order is worth keeping when one byte of so many was read


class Loader(Protocol):
    """What loads chunks in the background. No method waits or raises."""

    def ahead(self, chunks: Sequence[ChunkRef], distance: int, owner: object, /) -> None:
        """Have chunks decoded; `distance` bytes lie between the reader and the first, `owner` is for `cancel`."""
        ...

    def bring(self, chunks: Sequence[ChunkRef], distance: int, owner: object, /) -> int:
        """Have chunks fetched that only a remote has: bytes that are on their way, 0 when all is here."""
        ...

    def cancel(self, owner: object, /) -> None:
        """Forget what is wanted for `owner` and has not begun."""
        ...


class Watch:
    """Told of all reads of one content, whoever reads. Safe to share between threads.

    Attributes:
        content: id of the content.
        users: open handles; the prefetcher counts them.
        lesson: finds out where the tensors are and calls `learn`; None when that was done, or is not worth it.
    """

    def __init__(self, content: bytes, manifest: Manifest, loader: Loader, far_limit: int) -> None:
        """Watch the readers of a file.

        Args:
            content: its id.
            manifest: its chunks.
            loader: loads what is wanted.
            far_limit: most bytes that are brought from a remote ahead of a reader; 0 when there is no remote.
        """
        self.content = content
        self.users = 0
        self.lesson: Callable[[], None] | None = None
        self._manifest = manifest
        self._loader = loader
        self._far_limit = far_limit
        self._found_here = 0  # bytes that were wanted since a chunk was one that only a remote has
        self._cursors = Cursors(manifest.size)
        self._follower: Follower | None = None
        self._reset()
        _instances.add(self)

    def read(self, offset: int, size: int) -> None:
        """A program reads [offset, offset + size)."""
        stop = min(offset + size, self._manifest.size)
        if stop <= offset:
            return
        if self._is_far() and len(wanted := self._chunks([(offset, stop)])) > 1:
            self._loader.bring(wanted, 0, None)  # in one round, not one after the other
        limit = self._limit()
        with self._lock:
            want = self._cursors.read(offset, stop, limit)
            dropped = self._cursors.dropped
            if (follower := self._follower) is not None:
                ordered = follower.read(offset, stop, limit)
                if follower.is_over:
                    self._follower = None
                elif follower.follows:
                    want = ordered
        if dropped is not None:
            self._loader.cancel(dropped)
        if want is not None:
            self._load(want)

    def read_all(self) -> None:
        """A program reads all of the file, from the beginning on."""
        with self._lock:
            want = self._cursors.read_all(self._limit())
        if want is not None:
            self._load(want)

    def take_lesson(self) -> None:
        """Find out where the tensors are, unless that was done."""
        lesson, self.lesson = self.lesson, None
        if lesson is not None:
            lesson()

    def learn(self, extents: Extents | None) -> None:
        """Where the tensors of the file are."""
        self._cursors.extents = extents

    @property
    def extents(self) -> Extents | None:
        """Where the tensors of the file are, once that is known."""
        return self._cursors.extents

    def follow(self, order: Order) -> None:
        """Follow an order as long as the readers do. One from front to back says something only if a remote is far."""
        ranges = order.in_file(self.content, self._manifest.size, self.extents)
        if len(ranges) == 1 and not self._far_limit:
            return
        with self._lock:
            if self._follower is None:
                self._follower = Follower(ranges)

    def replayed(self) -> tuple[int, int]:
        """Bytes that were wanted because an order said so, and how many of them were read. Tells each byte once."""
        with self._lock:
            found = self._follower
            if found is None:
                return 0, 0
            told = found.asked_bytes, found.used_bytes
            found.asked_bytes = found.used_bytes = 0
            return told

    def end(self) -> Order | None:
        """The last handle was closed: what was read and in which order, None when that says little."""
        with self._lock:
            extents = self._cursors.extents
            order = order_of(self._cursors.legs or (), self.content, self._manifest.size, extents)
            for reader in (*self._cursors.active, self._cursors.walk):
                self._loader.cancel(reader)
            if self._follower is not None:
                self._loader.cancel(self._follower)
            self._follower = None
            if order is None or order.covered * LEAST_SHARE < self._manifest.size:
                return None
            self._cursors = Cursors(self._manifest.size)
            self._cursors.extents = extents
        return order

    def _load(self, want: Want) -> None:
        near = self._chunks(want.near)
        if self._far_limit:
            chunks = near + self._chunks(want.far)
            if self._loader.bring(chunks, want.distance, want.reader):
                self._found_here = 0
            else:
                self._found_here += sum(chunk.size for chunk in chunks)
        if near:
            self._loader.ahead(near, want.distance, want.reader)

    def _is_far(self) -> bool:
        """Whether a remote may have what is wanted next: as long as not all of the way so far was here."""
        return self._found_here < self._far_limit

    def _limit(self) -> int:
        return self._far_limit if self._is_far() else NEAR

    def _chunks(self, ranges: Sequence[tuple[int, int]]) -> list[ChunkRef]:
        return [span.chunk for start, end in ranges for span in self._manifest.locate(start, end - start)]

    def _reset(self) -> None:
        """A fresh lock: after a fork the thread that held the old one does not exist."""
        self._lock = threading.Lock()


_instances: weakref.WeakSet[Watch] = weakref.WeakSet()


def _after_fork() -> None:
    for watch in list(_instances):
        watch._reset()


os.register_at_fork(after_in_child=_after_fork)
