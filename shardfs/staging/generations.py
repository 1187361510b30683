"""Private contents: the plain files `files/<ino>.<gen>` of an area."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs.errors import AreaError
from shardfs.staging.locks import SnapshotLock
from shardfs.staging.nodes import Content

_FICLONE: Final = 0x40049409  # linux/fs.h: share the extents of another file
_PIECE: Final = 8 << 20  # bytes copied at a time: two chunks of the largest size
_ZEROS: Final = bytes(_PIECE)
_MAX_OUTDATED: Final = 256  # files that wait for a sync to be deleted; one sync costs some milliseconds
_MAX_OUTDATED_BYTES: Final = 256 << 20
_DISCARDS: Final = 500  # deletions at a time: a snapshot waits for them, some 10 ms
_NO_COPY: Final = frozenset({errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM})

FileKey = tuple[int, int]  # inode number, generation


class Generations:
    """The directory `files/` of an area."""

    def __init__(self, directory: Path, snapshots: SnapshotLock) -> None:
        self._directory = directory
        self._snapshots = snapshots
        self._guard = threading.Lock()
        self._outdated: dict[FileKey, int] = {}  # sizes in bytes
        self._doomed: set[FileKey] = set()
        directory.mkdir(exist_ok=True)

    def path(self, key: FileKey) -> Path:
        """Where a generation is."""
        return self._directory / f"{key[0]}.{key[1]}"

    def create(self, key: FileKey) -> int:
        """A descriptor of a new, empty generation. What a dead process left under that name is replaced."""
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        return self._open(key, flags)

    def open(self, key: FileKey) -> int:
        """A descriptor of a generation that exists (ENOENT); it cannot write where the store is read-only."""
        try:
            return self._open(key, os.O_RDWR | os.O_CLOEXEC)
        except AreaError as error:
            if error.errno not in (errno.EACCES, errno.EROFS):
                raise
            return self._open(key, os.O_RDONLY | os.O_CLOEXEC)

    def link(self, old: FileKey, new: FileKey) -> None:
        """Give a generation a second name."""
        with suppress(FileNotFoundError):
            self.path(new).unlink()
        try:
            os.link(self.path(old), self.path(new))
        except OSError as error:
            raise AreaError(error.errno or errno.EIO, str(self.path(new))) from error

    def sync(self) -> None:
        """Make the names of all generations durable."""
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def outdate(self, keys: Iterable[FileKey]) -> bool:
        """Rows no longer name these, but that is not on disk yet; whether there is so much that it should be."""
        with self._guard:
            for key in keys:
                if key not in self._outdated:
                    self._outdated[key] = self.size(key) or 0
            waiting = sum(self._outdated.values())
            return len(self._outdated) > _MAX_OUTDATED or waiting > min(_MAX_OUTDATED_BYTES, self._free_bytes())

    def _free_bytes(self) -> int:
        """Free space of the disk: what waits for deletion must not be what fills it."""
        found = os.statvfs(self._directory)
        return found.f_bavail * found.f_frsize

    def outdated(self) -> list[FileKey]:
        """What `outdate` was told and `discard` was not."""
        with self._guard:
            return list(self._outdated)

    def discard(self, keys: Iterable[FileKey] = ()) -> bool:
        """Delete generations that no row names, not even after a power cut.

        Put off, to the next call, while a snapshot is alive. Whether none is left over.
        """
        with self._guard:
            for key in keys:
                self._outdated.pop(key, None)
                self._doomed.add(key)
            while self._doomed:
                fd = self._snapshots.try_exclude()
                if fd is None:
                    return False
                try:
                    for _ in range(min(_DISCARDS, len(self._doomed))):
                        self.path(self._doomed.pop()).unlink(missing_ok=True)
                finally:
                    os.close(fd)
            return True

    def keys(self) -> set[FileKey]:
        """Every generation on disk."""
        found = set()
        for name in os.listdir(self._directory):  # noqa: PTH208 - 100 000 names without a Path each
            ino, _, gen = name.partition(".")
            if ino.isdecimal() and gen.isdecimal():
                found.add((int(ino), int(gen)))
        return found

    def size(self, key: FileKey) -> int | None:
        """Bytes on disk, or None when it is missing."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def stamp(self, key: FileKey) -> tuple[int, int]:
        """Size in bytes and modification time; zeros when it is missing."""
        try:
            found = self.path(key).stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_size, found.st_mtime_ns

    def cut(self, key: FileKey, size: int) -> None:
        """Drop what lies beyond `size`, if anything does."""
        with suppress(FileNotFoundError):
            if self.path(key).stat().st_size > size:
                os.truncate(self.path(key), size)

    def is_written(self, key: FileKey) -> bool:
        """Whether a program can still write to a generation: one that has it open, or mapped.

        The kernel lets it do so even when the daemon of its mount has died.
        """
        try:
            fd = os.open(self.path(key), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)  # refused while anybody can write
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def copy(self, key: FileKey, gen: int) -> FileKey:
        """Copy a generation to another one of the same file: its key."""
        new = (key[0], gen)
        source = self._open(key, os.O_RDONLY | os.O_CLOEXEC)
        try:
            target = self.create(new)
            try:
                copy_file(source, target, os.fstat(source).st_size)
            finally:
                os.close(target)
        except OSError as error:
            raise AreaError(error.errno or errno.EIO, str(self.path(new))) from error
        finally:
            os.close(source)
        return new

    def _open(self, key: FileKey, flags: int) -> int:
        try:
            return os.open(self.path(key), flags, 0o600)
        except OSError as error:
            raise AreaError(error.errno or errno.EIO, str(self.path(key))) from error


def copy_file(source: int, target: int, length: int) -> None:
    """Copy the first `length` bytes of a file into an empty one: shared extents, in-kernel copy, or plain copy.

    Holes stay holes. Raises OSError (ENOSPC ...).
    """
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        _copy_data(source, target, length)
    os.ftruncate(target, length)


def copy_content(content: Content, target: int, length: int) -> None:
    """Write the first `length` bytes of committed content into an empty file; runs of zeros become holes."""
    offset = 0
    while offset < length:
        piece = content.read_at(offset, min(_PIECE, length - offset))
        if not piece:
            raise AreaError(errno.EIO, "committed content is shorter than its size")
        if piece != _ZEROS[: len(piece)]:
            write_all(target, piece, offset)
        offset += len(piece)
    os.ftruncate(target, length)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`. Raises OSError."""
    done = os.pwrite(fd, data, offset)
    if done == len(data):
        return
    rest = memoryview(data)
    while done < len(rest):
        done += os.pwrite(fd, rest[done:], offset + done)


def _copy_data(source: int, target: int, length: int) -> None:
    offset = 0
    while offset < length:
        try:
            start = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            raise
        end = min(os.lseek(source, start, os.SEEK_HOLE), length)
        _copy_range(source, target, start, end)
        offset = max(end, start)


def _copy_range(source: int, target: int, offset: int, end: int) -> None:
    while offset < end:
        try:
            done = os.copy_file_range(source, target, end - offset, offset, offset)
        except OSError as error:
            if error.errno not in _NO_COPY:
                raise
            done = os.pwrite(target, os.pread(source, min(_PIECE, end - offset), offset), offset)
        if done == 0:
            return
        offset += done
