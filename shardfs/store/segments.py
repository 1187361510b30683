"""Segment files of the cache: records appended by one process, read by all.

Spec: docs/design/format/cache.md. A record is a fixed header and the encoded payload. The header
repeats what the cache's index knows about the record, so a read proves that the bytes at an offset
are the record that was meant; the payload itself is proven by whoever decodes it, against the id of
the plaintext. Nothing is fsynced: a record that a power cut turned into zeros fails that proof and
is a miss.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from pathlib import Path
from typing import Final, NamedTuple

Buffer = bytes | bytearray | memoryview

_HEADER = struct.Struct("<4sHBxQQ32s64s")  # magic, codec, number of bases, stored size, raw size, id, bases
_MAGIC: Final = b"SCR2"
HEADER_SIZE: Final = _HEADER.size
MAX_PAYLOAD_SIZE: Final = 64 << 20  # bytes; the largest object that a pack may hold
MAX_CODEC: Final = 0xFFFF


class Record(NamedTuple):
    """Where a cached payload lies and how it decodes.

    Attributes:
        segment: number of the segment file.
        offset: bytes from the start of the segment to the record's header.
        stored_size: bytes of the payload.
        raw_size: bytes of the plaintext.
        codec: code of the codec that decodes the payload.
        bases: ids of the chunks that the codec needs to decode, at most two, joined.
    """

    segment: int
    offset: int
    stored_size: int
    raw_size: int
    codec: int
    bases: bytes


def record_header(ident: bytes, record: Record) -> bytes:
    """The bytes in front of a payload."""
    return _HEADER.pack(
        _MAGIC,
        record.codec,
        len(record.bases) // 32,
        record.stored_size,
        record.raw_size,
        ident,
        record.bases,
    )


def segment_path(folder: Path, segment: int) -> Path:
    """The file of a segment."""
    return folder / f"{segment:016x}.seg"


def read_record(folder: Path, ident: bytes, record: Record) -> bytes | None:
    """The payload of a record, or None when the file is gone or holds something else at that place.

    Raises:
        OSError: the disk failed.
    """
    try:
        fd = os.open(segment_path(folder, record.segment), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        if os.pread(fd, HEADER_SIZE, record.offset) != record_header(ident, record):
            return None
        payload = os.pread(fd, record.stored_size, record.offset + HEADER_SIZE)
    finally:
        os.close(fd)
    return payload if len(payload) == record.stored_size else None


def remove_segment(folder: Path, segment: int) -> int:
    """Delete a segment and free its bytes at once, even while other processes hold it open; returns how many.

    Raises:
        OSError: the file is there and cannot be removed.
    """
    path = segment_path(folder, segment)
    try:
        size = path.stat().st_size
        os.truncate(path, 0)
        path.unlink()
    except FileNotFoundError:
        return 0
    return size


class SegmentWriter:
    """The one appender of a segment; the file lock tells other processes that there is one.

    `reserve` needs the caller's lock; `write` does not, so several threads write to one segment at
    once. The file is closed, and the segment free for another process, when the last thread lets go
    of the object.
    """

    def __init__(self, segment: int, fd: int, size: int, limit: int) -> None:
        self.segment = segment
        self._fd = fd
        self._end = size
        self._limit = limit

    def __del__(self) -> None:
        os.close(self._fd)

    @classmethod
    def create(cls, folder: Path, segment: int, limit: int) -> SegmentWriter:
        """A new, empty segment that takes up to `limit` bytes.

        Raises:
            OSError: the file exists or cannot be made.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        writer = cls(segment, os.open(segment_path(folder, segment), flags, 0o600), 0, limit)
        fcntl.flock(writer._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return writer

    @classmethod
    def adopt(cls, folder: Path, segment: int, limit: int) -> SegmentWriter | None:
        """A segment that an ended process left unfinished; None while a process appends to it.

        Raises:
            OSError: the file cannot be opened.
        """
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            fd = os.open(segment_path(folder, segment), flags)
        except FileNotFoundError:
            return None
        writer = cls(segment, fd, os.fstat(fd).st_size, limit)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        # Again: the owner may have written until it let go of the lock.
        writer._end = os.fstat(fd).st_size
        return writer

    def reserve(self, payload_size: int) -> int | None:
        """The offset of the next record, or None when the payload does not fit."""
        if not self.has_room(payload_size):
            return None
        offset = self._end
        self._end += HEADER_SIZE + payload_size
        return offset

    def has_room(self, payload_size: int) -> bool:
        """Whether a payload of that size fits."""
        return self._end + HEADER_SIZE + payload_size <= self._limit

    def write(self, ident: bytes, record: Record, payload: Buffer) -> None:
        """Write a record at its offset.

        Raises:
            OSError: disk full or broken; what was written is never referred to.
        """
        pieces = [memoryview(record_header(ident, record)), memoryview(payload)]
        offset = record.offset
        while pieces:
            written = os.pwritev(self._fd, pieces, offset)
            if written == 0:
                raise OSError(errno.EIO, "the file takes no bytes")
            offset += written
            while pieces and written >= len(pieces[0]):
                written -= len(pieces.pop(0))
            if pieces:
                pieces[0] = pieces[0][written:]
