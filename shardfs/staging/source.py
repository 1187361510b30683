"""A file that is being read: its stamp before and after, its bytes, its holes."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from shardfs.errors import FileChangedError, StoreError, UnsupportedFileError
from shardfs.history.content import FileReader
from shardfs.staging.layers import Layered
from shardfs.staging.ranges import Ranges

RACY_NS: Final = 20_000_000
"""A change so soon after another may leave the same times: clocks of file systems tick every 1 to 10 ms."""


class Stamp(NamedTuple):
    """What tells that a file is still the same: size in bytes, times in nanoseconds, inode number."""

    size: int
    mtime_ns: int
    ctime_ns: int
    ino: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp in the result of a stat."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)

    def is_racy(self, now_ns: int) -> bool:
        """Whether the file changed so shortly before `now_ns` that one more change may leave its times as they are.

        Told by ctime, which programs cannot set; mtime may lie in the future for ever.
        """
        return now_ns - RACY_NS < self.ctime_ns


def shown(name: bytes) -> str:
    """A file name as it can stand in a message: bytes that are no UTF-8 or do not print are escaped."""
    text = name.decode("utf-8", "backslashreplace")
    return text if text.isprintable() else ascii(text)[1:-1]


@contextmanager
def read_errors(name: bytes) -> Iterator[None]:
    """Turn an OSError of reading the file `name` into a StoreError that names it."""
    try:
        yield
    except OSError as error:
        msg = f"cannot read {shown(name)}: {error.strerror or error}"
        raise StoreError(msg) from error


class Source:
    """A regular file behind a descriptor, which the caller keeps open and whose offset moves."""

    def __init__(
        self, fd: int, name: bytes, size: int | None = None, below: tuple[FileReader, Ranges] | None = None
    ) -> None:
        """Note the stamp of the file.

        Waits up to 20 ms when the file changed just now, so that a further change shows in its times.

        Args:
            fd: open for reading.
            name: for messages.
            size: take this many bytes from the front, which the caller knows will not change, and do not
                check whether the file does. None: take the whole file, and check.
            below: committed content, and the ranges in which it counts instead of the file.

        Raises:
            UnsupportedFileError: not a regular file. StoreError: it cannot be read.
        """
        self.fd = fd
        self.name = name
        self._fixed = size is not None
        with read_errors(name):
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                msg = f"{shown(name)} is no regular file and cannot be versioned"
                raise UnsupportedFileError(msg)
            if not self._fixed:
                status = _settled(fd, status)
        self.stamp = Stamp.of(status)
        self.size = status.st_size if size is None else size
        self._sparse = status.st_blocks * 512 < status.st_size and below is None
        self._kept = Ranges() if below is None else below[1]
        self._layered = None if below is None else Layered(fd, *below)
        self._hole = (0, 0)
        self._data_end = 0

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end of the file."""
        size = max(0, min(size, self.size - offset))
        with read_errors(self.name):
            return os.pread(self.fd, size, offset) if self._layered is None else self._layered.read_at(offset, size)

    def read_all(self) -> bytes:
        """All bytes; as `fill`."""
        data = self.read_at(0, self.size)
        if len(data) != self.size:
            raise self._changed()
        return data

    def fill(self, buffer: memoryview, offset: int) -> None:
        """Read the bytes from `offset` on into all of `buffer`.

        Raises:
            FileChangedError: the file ends before. StoreError: it cannot be read.
        """
        for start, end, inside in self._kept.pieces(offset, offset + len(buffer)):
            rest = buffer[start - offset : end - offset]
            while rest:
                at = end - len(rest)
                if inside:
                    data = self.read_at(at, len(rest))
                    rest[: len(data)] = data
                    count = len(data)
                else:
                    with read_errors(self.name):
                        count = os.preadv(self.fd, [rest], at)
                if not count:
                    raise self._changed()
                rest = rest[count:]

    def worth_reading(self, offset: int, end: int, most: int) -> int:
        """Up to where to read at once, at most `most`, when the bytes from `offset` to `end` are needed anyway.

        What lies below may not have to be read at all.
        """
        if self._layered is None:
            return most
        piece = next(self._kept.pieces(end, most), None)
        return end if piece is None or piece.inside else piece.end

    def is_hole(self, start: int, end: int) -> bool:
        """Whether `[start, end)` lies in one hole of a sparse file: zeros that need no reading.

        Ask in ascending order of `start`.
        """
        if not self._sparse or start < self._data_end:
            return False
        if start >= self._hole[1]:
            self._find_hole(start)
        return self._hole[0] <= start and end <= self._hole[1]

    def check_unchanged(self) -> None:
        """Compare the file with its stamp.

        Raises:
            FileChangedError: they differ.
        """
        if self._fixed:
            return
        with read_errors(self.name):
            if Stamp.of(os.fstat(self.fd)) != self.stamp:
                raise self._changed()

    def _find_hole(self, start: int) -> None:
        try:
            data = os.lseek(self.fd, start, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                self._sparse = False  # the file system does not tell
                return
            data = self.size
        if data > start:
            self._hole = (start, data)
        else:
            with read_errors(self.name):
                self._data_end = os.lseek(self.fd, start, os.SEEK_HOLE)

    def _changed(self) -> FileChangedError:
        msg = f"{shown(self.name)} changed while it was read; try again when nothing writes to it"
        return FileChangedError(msg)


def _settled(fd: int, status: os.stat_result) -> os.stat_result:
    age = time.time_ns() - status.st_ctime_ns
    if not 0 <= age < RACY_NS:
        return status
    time.sleep((RACY_NS - age) / 1e9)
    return os.fstat(fd)
