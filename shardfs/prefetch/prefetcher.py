"""The files that are being read, and what is known of each: where its tensors are, and how it was read before."""

from __future__ import annotations

import logging
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final, NamedTuple

from shardfs import threads
from shardfs.errors import ShardfsError
from shardfs.formats.manifest import Manifest
from shardfs.formats.tree import FileEntry
from shardfs.prefetch.extents import Extents
from shardfs.prefetch.order import Order
from shardfs.prefetch.orders import Orders
from shardfs.prefetch.watch import Loader, Watch
from shardfs.store.memory import AheadBytes
from shardfs.tensors import Detector, ReadAt

_log = logging.getLogger(__name__)

MAX_WATCHES: Final = 64  # contents that are remembered; those that are open always are
PART: Final = 0.75  # of the bytes of an order; one with fewer does not replace it
LEAST_SIZE: Final = 4 << 20  # bytes; smaller files are read before anything is known of them
_CLOSE_S: Final = 1.0  # for records that are still to be written


class PrefetchCounters(NamedTuple):
    """What was loaded ahead, and whether it was wanted; bytes of plaintext.

    Attributes:
        loaded_bytes: chunks that were loaded before anybody wanted them.
        used_bytes: of those, the ones that somebody wanted later.
        wasted_bytes: of those, the ones that were given up unread.
        replayed_bytes: wanted because the order of an earlier load said so.
        replayed_used_bytes: of those, read.
        orders_kept: orders that were written down.
        orders_found: files whose order was known when they were opened.
    """

    loaded_bytes: int
    used_bytes: int
    wasted_bytes: int
    replayed_bytes: int
    replayed_used_bytes: int
    orders_kept: int
    orders_found: int


class Reading:
    """One reader of a watched file.

    Attributes:
        read: told of each read, with offset and size, before it happens.
        read_all: told that the whole file will be read.
    """

    __slots__ = ("_close", "read", "read_all")

    def __init__(self, watch: Watch, close: Callable[[], None]) -> None:
        self.read, self.read_all = watch.read, watch.read_all
        self._close = close

    def close(self) -> None:
        """Nothing more will be read. The second call does nothing."""
        close, self._close = self._close, _nothing
        close()


class Prefetcher:
    """Watches the files of one repository. Safe to share between threads; close() once."""

    def __init__(self, loader: Loader, orders: Orders | None, far_limit: Callable[[], int]) -> None:
        """Watch files.

        Args:
            loader: loads what is wanted.
            orders: where orders of reads are kept; None to keep none.
            far_limit: most bytes that are brought from remotes ahead of one reader; 0 when there are none.
        """
        self._loader = loader
        self._orders = orders
        self._far_limit = far_limit
        self._watches: OrderedDict[bytes, Watch] = OrderedDict()
        self._lock = threading.Lock()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False
        _instances.add(self)
        self.replayed_bytes = self.replayed_used_bytes = self.orders_kept = self.orders_found = 0

    def watch(self, entry: FileEntry, manifest: Manifest, read_at: ReadAt, path: bytes = b"") -> Reading:
        """What to tell of the reads of one file.

        Args:
            entry: the file.
            manifest: its chunks.
            read_at: reads it, unwatched.
            path: in its commit, when the order of the reads is to be kept: the caller then closes what it gets.
        """
        content = entry.manifest or entry.chunk or b""
        with self._lock:
            watch = self._watches.get(content)
            is_new = watch is None
            if watch is None:
                watch = self._watches[content] = Watch(content, manifest, self._loader, self._far_limit())
            self._watches.move_to_end(content)
            begins = bool(path) and not watch.users
            watch.users += bool(path)
            self._make_room()
        if manifest.size >= LEAST_SIZE:
            if is_new and manifest.media is not None:
                watch.lesson = lambda: watch.learn(_extents(read_at, manifest.size, path))
                if self._far_limit():
                    self._later(watch.take_lesson)
            if begins and self._orders is not None:
                self._later(lambda: self._recall(watch, path))
        return Reading(watch, (lambda: self._left(watch, path)) if path else _nothing)

    def counters(self, ahead: AheadBytes) -> PrefetchCounters:
        """What was done so far; `ahead` is the loader's part of it."""
        orders = (self.replayed_bytes, self.replayed_used_bytes, self.orders_kept, self.orders_found)
        return PrefetchCounters(ahead.loaded, ahead.used, ahead.wasted, *orders)

    def close(self) -> None:
        """Write down what is still to be written."""
        with self._lock:
            thread, self._closed = self._thread, True
        self._jobs.put(None)
        if thread is not None:
            thread.join(_CLOSE_S)

    def _make_room(self) -> None:
        too_many = max(0, len(self._watches) - MAX_WATCHES)
        for content in [content for content, watch in self._watches.items() if not watch.users][:too_many]:
            del self._watches[content]

    def _left(self, watch: Watch, path: bytes) -> None:
        with self._lock:
            watch.users -= 1
            if watch.users:
                return
        self._later(lambda: self._end(watch, path))

    def _end(self, watch: Watch, path: bytes) -> None:
        """Nobody has the file open: keep the order of what was read."""
        if watch.users:
            return
        asked, used = watch.replayed()
        self.replayed_bytes += asked
        self.replayed_used_bytes += used
        watch.take_lesson()  # the order names tensors; before, this would have taken processor time from the reader
        order = watch.end()
        if order is not None and order.size >= LEAST_SIZE:
            self._keep(path, order)

    def _recall(self, watch: Watch, path: bytes) -> None:
        order = None if self._orders is None else self._orders.find(path)
        if order is not None:
            watch.follow(order)
            self.orders_found += 1

    def _keep(self, path: bytes, order: Order) -> None:
        """Write an order down, unless it is known, or seems to be a part of one: pages in memory are read unseen."""
        if self._orders is None:
            return
        known = self._orders.find(path)
        if known is not None and known.content == order.content and _adds_nothing(order, known):
            return
        self.orders_kept += self._orders.keep(path, order)

    def _later(self, job: Callable[[], None]) -> None:
        """Do something in the background, one thing after the other."""
        with self._lock:
            if self._closed:
                return
            if self._thread is None:
                self._thread = threads.start(self._work, "prefetch")
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except Exception:  # noqa: BLE001 - the next one may be done
                _log.exception("reading ahead")

    def _reset(self) -> None:
        """After a fork the thread does not exist, and the lock may be held for ever."""
        self._lock = threading.Lock()
        self._jobs = SimpleQueue()
        self._thread = None
        self._watches = OrderedDict()


def _adds_nothing(order: Order, known: Order) -> bool:
    return order.ranges == known.ranges or order.covered < PART * known.covered


def _nothing() -> None:
    pass


def _extents(read_at: ReadAt, size: int, path: bytes) -> Extents | None:
    try:
        layout = Detector().detect(read_at, size, path)
    except ShardfsError as error:
        _log.debug("%s: its tensors are not known: %s", path, error)
        return None
    return None if layout is None or not layout.stretches else Extents(layout.stretches)


_instances: weakref.WeakSet[Prefetcher] = weakref.WeakSet()


def _after_fork() -> None:
    for prefetcher in list(_instances):
        prefetcher._reset()


os.register_at_fork(after_in_child=_after_fork)
