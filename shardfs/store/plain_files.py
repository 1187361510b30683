"""Whole files of the cache: contents that programs read as plain files, without decoding.

Spec: docs/design/format/cache.md, "Plain files". As with all of the cache, losing them loses nothing, so no method
raises but those of `Unfinished`. Whoever hands a file out checks its content first: here nothing is read.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Container, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from shardfs.store.cache_index import Change, FileRow, Item

if TYPE_CHECKING:
    from shardfs.store.cache import Cache

FOLDER: Final = "files"
_TEMP_SUFFIX: Final = ".tmp"
_TELL_INTERVAL_S: Final = 10.0  # how late other processes may see that a file is in use
_FAILURES: Final = (sqlite3.Error, OSError, UnicodeDecodeError)


class Stamp(NamedTuple):
    """What changes when somebody writes to a file or puts another in its place."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, fd: int) -> Stamp:
        """The stamp of an open file."""
        status = os.fstat(fd)
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def file_path(folder: Path, id_: bytes) -> Path:
    """The plain file of a content; `folder` is that of the cache's version."""
    return folder / FOLDER / id_.hex()


def temp_path(folder: Path, number: int) -> Path:
    """An unfinished plain file."""
    return folder / FOLDER / f"{number:016x}{_TEMP_SUFFIX}"


def is_being_written(folder: Path, row: FileRow) -> bool:
    """Whether a process writes this file now."""
    return bool(row.writer) and _is_locked(temp_path(folder, row.writer))


def remove_file(folder: Path, row: FileRow) -> None:
    """Delete a plain file, whole or not; who has it open keeps it.

    Raises:
        OSError: it is there and cannot be removed.
    """
    if row.writer:
        temp_path(folder, row.writer).unlink(missing_ok=True)
    file_path(folder, row.id).unlink(missing_ok=True)


def sweep(folder: Path, change: Change) -> None:
    """Make files and rows agree after processes were killed.

    Raises:
        OSError, sqlite3.Error: by the disk.
    """
    rows = {item.what.id: item.what for item in change.items() if isinstance(item.what, FileRow)}
    for row in rows.values():
        if _is_lost(folder, row) and not is_being_written(folder, row):
            remove_file(folder, row)
            change.drop(row)
    known = {file_path(folder, row.id).name for row in rows.values()}
    known |= {temp_path(folder, row.writer).name for row in rows.values() if row.writer}
    for path in (folder / FOLDER).iterdir():
        if path.name not in known:
            path.unlink(missing_ok=True)


def needs_sweep(folder: Path, rows: list[FileRow]) -> bool:
    """Whether files and rows differ, or something is unfinished."""
    names = {path.name for path in (folder / FOLDER).iterdir()}
    return any(row.writer for row in rows) or names != {file_path(folder, row.id).name for row in rows}


def _is_lost(folder: Path, row: FileRow) -> bool:
    """Whether a row stands for no file that is whole, as far as can be told without reading."""
    return bool(row.writer) or not _has_size(file_path(folder, row.id), row.size)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _create(path: Path) -> int:
    """A new file with the lock that says that it is being written."""
    path.parent.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


class Unfinished:
    """A plain file that is being written. A context manager: what was not finished is removed at the end."""

    def __init__(self, files: PlainFiles, row: FileRow, fd: int) -> None:
        self._files = files
        self._row = row
        self._fd = fd
        self._is_done = False

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes.

        Raises:
            OSError: disk full or broken, or others have filled it: less would be free than `cache.min_free`.
        """
        self._files._check_floor(len(data))
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]

    def finish(self) -> Stamp | None:
        """Make the file what readers find; None when it was given up meanwhile, or the disk failed."""
        self._is_done = os.fstat(self._fd).st_size == self._row.size and self._files._publish(self._row, self._fd)
        return Stamp.of(self._fd) if self._is_done else None

    def __enter__(self) -> Unfinished:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_done:
            self._files._give_up(self._row)
        os.close(self._fd)


class PlainFiles:
    """The plain files of a cache. Safe for any number of threads and processes.

    Attributes:
        made: files that this process finished.
        evicted: files that this process removed to make room, or because it was asked to.
    """

    def __init__(self, cache: Cache, folder: Path) -> None:
        """The plain files of a cache; `folder` is that of its version."""
        self._cache = cache
        self._folder = folder
        self._used: dict[bytes, int] = {}  # since the index was told last: nanoseconds since 1970
        self._told_at = time.monotonic()
        self.made = self.evicted = 0

    def open(self, id_: bytes) -> int | None:
        """A descriptor of the file of a content, not checked; None when there is none. Looks at the file alone."""
        try:
            fd = os.open(self.path(id_), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            return None
        self._used[id_] = time.time_ns()
        return fd

    def path(self, id_: bytes) -> Path:
        """Where the file of a content is or would be."""
        return file_path(self._folder, id_)

    def holds(self, id_: bytes, size: int) -> bool:
        """Whether there is a file of a content with this size; its content is not looked at."""
        return _has_size(self.path(id_), size)

    @property
    def is_use_untold(self) -> bool:
        """Whether files were used and it is time to tell the index so, with `tell_use`."""
        return bool(self._used) and time.monotonic() - self._told_at > _TELL_INTERVAL_S

    def take_used(self) -> dict[bytes, int]:
        """When files were used, in nanoseconds since 1970, for the caller to tell the index."""
        self._told_at = time.monotonic()
        used, self._used = self._used, {}
        return used

    def tell_use(self) -> None:
        """Tell other processes which files are in use here."""
        try:
            self._cache.flush(self._cache.current())
        except _FAILURES as error:
            self._cache.failed("writing", error)

    def is_being_written(self, id_: bytes) -> bool:
        """Whether a thread or process writes the file of a content now."""
        try:
            live = self._cache.current()
            row = live.index.file(id_)
            return row is not None and is_being_written(live.folder, row)
        except _FAILURES as error:
            self._cache.failed("reading", error)
            return False

    def begin(self, id_: bytes, size: int) -> Unfinished | None:
        """Start to write the file of a content: the caller verifies what it writes.

        Returns:
            None when there is one, when another thread or process writes it, or when there is no room.
        """
        if self._cache.is_paused() or size > self._cache.limit_bytes:
            return None
        try:
            return self._begin(id_, size)
        except _FAILURES as error:
            self._cache.failed("writing", error)
            return None

    def discard(self, id_: bytes) -> int:
        """Remove the file of a content, also a pinned one; returns its bytes, 0 when there is none or it is written."""
        try:
            live = self._cache.current()
            with live.index.changing() as change:
                row = change.file(id_)
                if row is None or is_being_written(live.folder, row):
                    return 0
                remove_file(live.folder, row)
                change.drop(row)
                return row.size
        except _FAILURES as error:
            self._cache.failed("writing", error)
            return 0

    def evict(self, ids: Iterable[bytes]) -> int:
        """Remove the files of contents because somebody asked for it; returns the bytes that this freed."""
        freed = [size for id_ in ids if (size := self.discard(id_))]
        self.evicted += len(freed)
        return sum(freed)

    def report(self, doing: str, error: Exception) -> None:
        """Note that writing a file failed: nothing is written for a moment."""
        self._cache.failed(doing, error)

    def totals(self) -> tuple[int, int]:
        """Number and bytes of the whole files; zeros when the cache cannot be used."""
        whole = [row.size for row in self.rows() if not row.writer]
        return len(whole), sum(whole)

    def rows(self) -> list[FileRow]:
        """All plain files, least recently used first; none when the cache cannot be used."""
        try:
            return self._cache.current().index.files()
        except _FAILURES as error:
            self._cache.failed("reading", error)
            return []

    def _begin(self, id_: bytes, size: int) -> Unfinished | None:
        live = self._cache.current()
        known = live.index.file(id_)
        if known is not None and not _is_lost(live.folder, known):
            return None
        # Whether all that may go would be enough comes first: nothing goes for a file that cannot be made.
        is_low = self._cache.above_floor(live.folder) < size
        if is_low and (size > self._cache.room_on_disk() or not self._cache.keep_floor(live, size)):
            return None
        self._cache.flush(live)
        pinned = self._cache.pins.ids()
        row = FileRow(id_, size, secrets.randbits(62) | 1)
        fd = -1
        try:
            with live.index.changing() as change:
                old = change.file(id_)
                if old is not None and (is_being_written(live.folder, old) or not _is_lost(live.folder, old)):
                    return None
                if old is not None:
                    remove_file(live.folder, old)
                    change.drop(old)
                room = self._cache.room(live) - size
                if not self._cache.make_room(live, change, lambda left: left <= room, pinned):
                    return None
                fd = _create(temp_path(live.folder, row.writer))
                change.add_file(row, time.time_ns())
        except BaseException:
            if fd >= 0:
                os.close(fd)  # the file without a row is empty, and goes when the cache is opened next
            raise
        return Unfinished(self, row, fd)

    def _check_floor(self, size: int) -> None:
        if self._cache.above_floor(self._folder) < size:
            raise OSError(errno.ENOSPC, "less would be free on the disk than cache.min_free")

    def _publish(self, row: FileRow, fd: int) -> bool:
        try:
            live = self._cache.current()
            with live.index.changing() as change:
                if change.file(row.id) != row:
                    return False
                os.fchmod(fd, 0o400)  # a program that opens the path for writing is refused
                temp_path(live.folder, row.writer).rename(file_path(live.folder, row.id))
                change.finish_file(row.id, time.time_ns())
        except _FAILURES as error:
            self._cache.failed("writing", error)
            return False
        self.made += 1
        return True

    def _give_up(self, row: FileRow) -> None:
        try:
            live = self._cache.current()
            with live.index.changing() as change:
                if change.file(row.id) == row:
                    remove_file(live.folder, row)
                    change.drop(row)
                else:
                    temp_path(live.folder, row.writer).unlink(missing_ok=True)
        except _FAILURES as error:
            self._cache.failed("writing", error)


def stays(folder: Path, pinned: Container[bytes], item: Item) -> bool:
    """Whether an item of the index may not be given up: pinned, or being written."""
    row = item.what
    return isinstance(row, FileRow) and (row.id in pinned or is_being_written(folder, row))


def remove_quietly(folder: Path) -> None:
    """Delete all plain files of a cache that starts over."""
    with suppress(FileNotFoundError):
        for path in (folder / FOLDER).iterdir():
            path.unlink(missing_ok=True)
