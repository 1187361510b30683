"""Payloads fetched from remotes, and whole plain files, kept on this machine as long as there is room.

Spec: docs/design/format/cache.md. Losing the cache loses nothing, so nothing here raises: a disk
that is full, broken, read-only or gone means that `get` finds nothing and `put` keeps nothing. All
processes of a user share one directory. Payloads are kept as fetched, encoded; whoever decodes one
verifies it and calls `discard` if it is bad.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from shardfs.formats.ids import split_ids
from shardfs.store import cache_folder, plain_files
from shardfs.store.cache_index import CacheIndex, Change, FileRow, Item, WrongTypesError
from shardfs.store.pins import Pins
from shardfs.store.plain_files import PlainFiles
from shardfs.store.segments import (
    HEADER_SIZE,
    MAX_PAYLOAD_SIZE,
    Buffer,
    Record,
    SegmentWriter,
    read_record,
    remove_segment,
)

_log = logging.getLogger(__name__)

_SEGMENT_SIZE: Final = 64 << 20  # bytes
_MIN_SEGMENTS: Final = 16  # a small cache has smaller segments, so that eviction stays selective
# Bytes that are kept free for the index, so that it can grow without anything having to go: its log has 1 MiB.
_INDEX_SIZE: Final = 2 << 20
_INDEX_SHARE: Final = 4  # of a small cache, one byte in so many at most
_TOUCH_INTERVAL_S: Final = 10.0  # how late other processes may see that a segment is in use
# After a failure: a broken disk then costs one attempt now and then, not one per read.
_PAUSE_S: Final = 5.0

# A flipped bit in the header makes a database read-only; on a disk that really is, throwing it away fails.
_DAMAGED: Final = frozenset(
    {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_READONLY}
)

_FAILURES: Final = (sqlite3.Error, OSError, UnicodeDecodeError)
"""What using the index can raise; the last when SQLite quotes a damaged schema that is no text."""


class CachedPayload(NamedTuple):
    """An encoded payload and what decoding it takes.

    Attributes:
        codec: code of the codec.
        raw_size: bytes of the plaintext.
        bases: ids of the chunks that the codec needs.
        payload: the encoded bytes; not verified yet.
    """

    codec: int
    raw_size: int
    bases: tuple[bytes, ...]
    payload: bytes


class CacheStats(NamedTuple):
    """What a cache holds and has done.

    Attributes:
        records: number of payloads.
        stored_bytes: bytes of payloads.
        segments: number of segment files.
        files: number of whole plain files.
        file_bytes: their bytes.
        reserved_bytes: bytes counted against the limit; at most `limit_bytes`.
        limit_bytes: the hard limit.
        hits: payloads found by this process.
        misses: payloads not found by this process.
    """

    records: int
    stored_bytes: int
    segments: int
    files: int
    file_bytes: int
    reserved_bytes: int
    limit_bytes: int
    hits: int
    misses: int


class Live:
    """Everything that belongs to one incarnation of the directory."""

    def __init__(self, folder: Path, index: CacheIndex) -> None:
        self.folder = folder
        self.index = index
        self.writer: SegmentWriter | None = None
        self.used: dict[int, int] = {}  # segments used since the last flush -> nanoseconds
        self.flushed_at = time.monotonic()


def _disk_free_bytes(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


class Cache:
    """A bounded cache of encoded payloads and of plain files.

    Safe for any number of threads and processes; no method raises.

    Args:
        directory: made with mode 0700 when missing; one that belongs to another user is not used.
        limit_bytes: most bytes that segments, plain files and index may take on disk.
        free_floor_bytes: least bytes that the file system must have free after a put.
        free_bytes: tells the free bytes of a file system; for tests.
        pause_s: seconds without puts after a failure.

    Attributes:
        files: the plain files.
        pins: which plain files stay.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limit_bytes: int,
        free_floor_bytes: int,
        free_bytes: Callable[[Path], int] = _disk_free_bytes,
        pause_s: float = _PAUSE_S,
    ) -> None:
        self.directory = Path(directory)
        self.files = PlainFiles(self, self.directory / cache_folder.VERSION)
        self.pins = Pins(self.directory)
        self.limit_bytes = limit_bytes
        self.free_floor_bytes = free_floor_bytes
        self.segment_bytes = max(1, min(_SEGMENT_SIZE, limit_bytes // _MIN_SEGMENTS))
        self._free_bytes = free_bytes
        self._pause_s = pause_s
        self._paused_until = 0.0  # puts
        self._closed_until = 0.0  # everything, after the directory could not be opened
        self._reported: set[tuple[type, object]] = set()
        self._lock = threading.Lock()
        self._live: Live | None = None
        self._hits = self._misses = 0
        _instances.add(self)

    @classmethod
    def open(cls, directory: Path, *, limit_bytes: int, free_floor_bytes: int) -> Cache:
        """A cache whose directory exists, if it can be made at all, and is within its limit."""
        cache = cls(directory, limit_bytes=limit_bytes, free_floor_bytes=free_floor_bytes)
        try:
            live = cache.current()
            room = cache.room(live)
            cache._give_up(live, lambda left: left <= room)
        except _FAILURES as error:
            cache.failed("opening", error)
        return cache

    def get(self, ident: bytes) -> CachedPayload | None:
        """The payload of an id, or None.

        The caller decodes and verifies it, and discards it when it is wrong.
        """
        try:
            found = self._get(ident)
        except _FAILURES as error:
            self.failed("reading", error)
            found = None
        if found is None:
            self._misses += 1
        else:
            self._hits += 1
        return found

    def put(self, ident: bytes, codec: int, raw_size: int, bases: tuple[bytes, ...], payload: Buffer) -> None:
        """Keep a payload if there is room; what was used least recently makes room."""
        if self.is_paused():
            return
        try:
            self._put(ident, Record(0, 0, len(payload), raw_size, codec, b"".join(bases)), payload)
        except _FAILURES as error:
            self.failed("writing", error)

    def contains(self, ident: bytes) -> bool:
        """Whether a payload is remembered; `get` may still find it damaged."""
        return self.bases(ident) is not None

    def bases(self, ident: bytes) -> tuple[bytes, ...] | None:
        """Ids of the chunks that a remembered payload needs to decode; None when it is not remembered."""
        try:
            record = self.current().index.find(ident)
        except _FAILURES as error:
            self.failed("reading", error)
            return None
        return None if record is None else split_ids(record.bases)

    def discard(self, ident: bytes) -> None:
        """Forget a payload, because it turned out to be damaged."""
        try:
            self.current().index.delete(ident)
        except _FAILURES as error:
            self.failed("writing", error)

    def evict(self, ids: Iterable[bytes]) -> int:
        """Forget payloads, and delete the segments that are empty then; returns the bytes that this freed."""
        try:
            live = self.current()
            with live.index.changing() as change:
                empty = change.forget(ids)
                return sum(self._drop(live, change, item) for item in empty)
        except _FAILURES as error:
            self.failed("writing", error)
            return 0

    def clear(self) -> int:
        """Delete all that is neither pinned nor being written; returns the bytes that this freed."""
        try:
            live = self.current()
            pinned = self.pins.ids()
            with live.index.changing() as change:
                items = [item for item in change.items() if not plain_files.stays(live.folder, pinned, item)]
                return sum(self._drop(live, change, item) for item in items)
        except _FAILURES as error:
            self.failed("writing", error)
            return 0

    def stats(self) -> CacheStats:
        """Sizes and counts; zeros when the cache cannot be used."""
        totals, reserved = (0, 0, 0, 0, 0), 0
        try:
            index = self.current().index
            totals, reserved = index.totals(), index.reserved() + index.file_size()
        except _FAILURES as error:
            self.failed("reading", error)
        return CacheStats(*totals, reserved, self.limit_bytes, self._hits, self._misses)

    def room_for_files(self) -> int:
        """Bytes that plain files can have together; 0 when the cache cannot be used."""
        try:
            return max(0, self.room(self.current()) - self.segment_bytes)
        except _FAILURES as error:
            self.failed("reading", error)
            return 0

    def room_on_disk(self) -> int:
        """Bytes that the disk has above the floor, if everything in the cache went that may; 0 when it is unusable."""
        try:
            live = self.current()
            pinned = sum(self.pins.ids().values())
            return max(0, self.above_floor(live.folder) + max(0, live.index.reserved() - pinned))
        except _FAILURES as error:
            self.failed("reading", error)
            return 0

    def close(self) -> None:
        """Let go of all files. A later call opens them again."""
        with self._lock:
            live, self._live = self._live, None
        if live is not None:
            with suppress(*_FAILURES):
                self.flush(live)
            live.writer = None
            with suppress(sqlite3.Error):
                live.index.close()

    # Reading

    def _get(self, ident: bytes) -> CachedPayload | None:
        live = self.current()
        record = live.index.find(ident)
        if record is None:
            return None
        payload = read_record(live.folder, ident, record)
        if payload is None:
            live.index.delete(ident)
            return None
        live.used[record.segment] = time.time_ns()
        self._flush_now_and_then(live)
        return CachedPayload(record.codec, record.raw_size, split_ids(record.bases), payload)

    def _flush_now_and_then(self, live: Live) -> None:
        if time.monotonic() - live.flushed_at > _TOUCH_INTERVAL_S:
            # Costs eviction a little accuracy, not the reader its bytes.
            with suppress(sqlite3.Error):
                self.flush(live)

    def flush(self, live: Live) -> None:
        """Tell other processes, and what is given up next, what was used here.

        Raises:
            sqlite3.Error: by the disk.
        """
        live.flushed_at = time.monotonic()
        used, live.used = live.used, {}
        files = self.files.take_used()
        if used or files:
            live.index.touch(list(used.items()), list(files.items()))

    # Writing

    def _put(self, ident: bytes, shape: Record, payload: Buffer) -> None:
        size = HEADER_SIZE + shape.stored_size
        if shape.stored_size > MAX_PAYLOAD_SIZE or size > self.limit_bytes:
            return
        live = self.current()
        if live.index.find(ident) is not None or not self.keep_floor(live, size):
            return
        reserved = self._reserve(live, shape.stored_size)
        if reserved is None:
            return
        writer, offset = reserved
        record = shape._replace(segment=writer.segment, offset=offset)
        writer.write(ident, record, payload)
        live.used[record.segment] = time.time_ns()
        if not live.index.insert(ident, record):
            with self._lock:
                live.writer = None

    def _reserve(self, live: Live, payload_size: int) -> tuple[SegmentWriter, int] | None:
        """Room for a record in the segment that this process appends to, which may be a new one."""
        with self._lock:
            if live.writer is not None:
                offset = live.writer.reserve(payload_size)
                if offset is not None:
                    return live.writer, offset
                full, live.writer = live.writer.segment, None
                live.index.mark_full(full)
            needed = max(self.segment_bytes, HEADER_SIZE + payload_size)
            live.writer = self._adopt(live, payload_size) or self._create(live, needed)
            if live.writer is None:
                return None
            offset = live.writer.reserve(payload_size)
            return None if offset is None else (live.writer, offset)

    def _adopt(self, live: Live, payload_size: int) -> SegmentWriter | None:
        """A segment that a process left unfinished: many short-lived ones fill one file."""
        for segment, reserved in live.index.unfinished(limit=8):
            writer = SegmentWriter.adopt(live.folder, segment, reserved)
            if writer is not None and writer.has_room(payload_size):
                return writer
        return None

    def _create(self, live: Live, reserved: int) -> SegmentWriter | None:
        """A new segment, after others made room for it; None when the limit is too small."""
        room = self.room(live) - reserved
        if room < 0:
            return None
        segment = secrets.randbits(62)
        self.flush(live)
        pinned = self.pins.ids()
        with live.index.changing() as change:
            if not self.make_room(live, change, lambda left: left <= room, pinned):
                return None
            change.add_segment(segment, reserved, time.time_ns())
        return SegmentWriter.create(live.folder, segment, reserved)

    def keep_floor(self, live: Live, size: int) -> bool:
        """Whether the disk has `size` bytes above the floor, after giving up what was used least recently if need be.

        Raises:
            OSError, sqlite3.Error: by the disk.
        """
        if self.above_floor(live.folder) >= size:
            return True
        with self._lock:
            live.writer = None
            self._give_up(live, lambda _: self.above_floor(live.folder) >= size)
        if self.above_floor(live.folder) >= size:
            return True
        self._pause()
        return False

    def above_floor(self, folder: Path) -> int:
        """Bytes that may be written before less is free on the disk than the floor; negative when it is so already.

        Raises:
            OSError: by the disk.
        """
        return self._free_bytes(folder) - self.free_floor_bytes

    def _give_up(self, live: Live, enough: Callable[[int], bool]) -> None:
        """Give up items until it is enough or none is left that may go."""
        self.flush(live)
        pinned = self.pins.ids()
        with live.index.changing() as change:
            self._drop_oldest(live, change, change.items(), enough, pinned)

    def room(self, live: Live) -> int:
        """Bytes that segments and plain files can have together.

        Raises:
            OSError: by the disk.
        """
        return self.limit_bytes - max(live.index.file_size(), min(_INDEX_SIZE, self.limit_bytes // _INDEX_SHARE))

    def make_room(self, live: Live, change: Change, enough: Callable[[int], bool], pinned: Container[bytes]) -> bool:
        """Give up segments and plain files, least recently used first, until `enough(bytes left)`.

        Returns:
            False, with nothing given up, when it would not be enough if all went that may.

        Raises:
            OSError, sqlite3.Error: by the disk.
        """
        if enough(change.reserved()):
            return True
        items = change.items()
        staying = sum(item.reserved for item in items if plain_files.stays(live.folder, pinned, item))
        return enough(staying) and self._drop_oldest(live, change, items, enough, pinned)

    def _drop_oldest(
        self, live: Live, change: Change, items: list[Item], enough: Callable[[int], bool], pinned: Container[bytes]
    ) -> bool:
        left = sum(item.reserved for item in items)
        for item in items:
            if enough(left):
                return True
            if not plain_files.stays(live.folder, pinned, item):
                self._drop(live, change, item)
                left -= item.reserved
        return enough(left)

    def _drop(self, live: Live, change: Change, item: Item) -> int:
        """Delete a file, then its row; returns the bytes that the file had.

        After a crash in between, reads of it are misses and the next call finishes the work. The other order would
        leave files that nobody counts.
        """
        if isinstance(item.what, FileRow):
            plain_files.remove_file(live.folder, item.what)
            self.files.evicted += 1
            size = item.what.size
        else:
            size = remove_segment(live.folder, item.what)
        change.drop(item.what)
        return size

    # Opening, failing, starting over

    def current(self) -> Live:
        """The incarnation of the directory that is on disk now.

        Raises:
            OSError, sqlite3.Error: there is none and none can be made.
        """
        live = self._live
        if live is not None and live.index.is_current():
            return live
        with self._lock:
            if self._live is None or not self._live.index.is_current():
                self._live = self._reopen()
            return self._live

    def _reopen(self) -> Live:
        if time.monotonic() < self._closed_until:
            msg = "the cache could not be opened a moment ago"
            raise BlockingIOError(msg)
        folder = self.directory / cache_folder.VERSION
        try:
            cache_folder.make_private(self.directory)
            cache_folder.remove_old_versions(self.directory)
            folder.mkdir(mode=0o700, exist_ok=True)
            with cache_folder.lock(folder):
                try:
                    index = cache_folder.open_index(folder)
                except _FAILURES as error:
                    if not _is_damage(error):
                        raise
                    cache_folder.wipe(folder)
                    index = cache_folder.open_index(folder)
        except _FAILURES:
            self._closed_until = time.monotonic() + self._pause_s
            raise
        return Live(folder, index)

    def failed(self, doing: str, error: Exception) -> None:
        """Note a failure: start over when the index is damaged, pause puts else."""
        self._report(doing, error)
        if _is_damage(error):
            with suppress(*_FAILURES):
                self._start_over()
        else:
            self._pause()

    def _start_over(self) -> None:
        """Throw the contents away, unless another process already did."""
        with self._lock:
            live, self._live = self._live, None
            if live is not None:
                with cache_folder.lock(live.folder):
                    if live.index.is_current():
                        cache_folder.wipe(live.folder)

    def is_paused(self) -> bool:
        """Whether nothing is written for now, after a failure."""
        return time.monotonic() < self._paused_until

    def _pause(self) -> None:
        self._paused_until = time.monotonic() + self._pause_s

    def _report(self, doing: str, error: Exception) -> None:
        """One warning per kind of failure; it would repeat with every read."""
        code = getattr(error, "sqlite_errorcode", None) or getattr(error, "errno", None)
        kind = (type(error), code)
        level = logging.DEBUG
        if kind not in self._reported and not isinstance(error, BlockingIOError):
            self._reported.add(kind)
            level = logging.WARNING
        message = "cache %s: %s failed, going on without: %s"
        _log.log(level, message, self.directory, doing, error)


def _is_damage(error: BaseException) -> bool:
    """Whether an error says that the index file is not a sound database of ours."""
    if isinstance(error, (WrongTypesError, UnicodeDecodeError)):
        return True
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and (code & 0xFF) in _DAMAGED


_instances: weakref.WeakSet[Cache] = weakref.WeakSet()
_inherited: list[Live] = []


def _forget_parent_state() -> None:
    """Start afresh in a forked child.

    Neither SQLite connections nor locks survive a fork, and the parent still owns its segment. The
    parent's objects are kept, unused: closing them here would disturb the parent.
    """
    for cache in list(_instances):
        cache._lock = threading.Lock()
        if cache._live is not None:
            _inherited.append(cache._live)
            cache._live = None


os.register_at_fork(after_in_child=_forget_parent_state)
