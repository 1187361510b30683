"""The directory of a zip file: which member lies where. Members are never decompressed."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from shardfs.tensors.layout import ReadAt

MAX_DIRECTORY: Final = 32 << 20  # bytes; some 90 per member
MAX_MEMBERS: Final = 250_000

_END: Final = struct.Struct("<4s4H2LH")
_END64_LOCATOR: Final = struct.Struct("<4sLQL")
_END64: Final = struct.Struct("<4sQ2H2L4Q")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_MAX_COMMENT: Final = 0xFFFF
_ESCAPE16, _ESCAPE32 = 0xFFFF, 0xFFFFFFFF  # "look in the zip64 record"
_STORED, _ENCRYPTED, _ZIP64_EXTRA = 0, 1, 1


@dataclass(frozen=True, slots=True)
class Member:
    """A member that is stored as it is; `header` is the offset of its local header, `size` in bytes."""

    name: str
    header: int
    size: int


def read_members(read_at: ReadAt, size: int) -> list[Member] | None:
    """The stored members of a zip file of `size` bytes, in directory order.

    Compressed and encrypted members are left out. None when the bytes are no zip file, use several
    disks, or have a directory past `MAX_DIRECTORY` or `MAX_MEMBERS`.
    """
    place = _directory(read_at, size)
    if place is None:
        return None
    offset, length, count = place
    if length > MAX_DIRECTORY or count > MAX_MEMBERS or offset + length > size:
        return None
    directory = read_at(offset, length)
    members = []
    position = 0
    for _ in range(count):
        if position + _CENTRAL.size > len(directory):
            return None
        fields = _CENTRAL.unpack_from(directory, position)
        if fields[0] != b"PK\x01\x02":
            return None
        end = position + _CENTRAL.size + sum(fields[10:13])
        member = _member(fields, directory[position + _CENTRAL.size : end])
        if member is not None:
            members.append(member)
        position = end
    return members


def locate(read_at: ReadAt, size: int, member: Member) -> tuple[int, int] | None:
    """The bytes `[start, end)` of a stored member; None when its local header is not where it should be."""
    header = read_at(member.header, _LOCAL.size) if member.header < size else b""
    if len(header) != _LOCAL.size or header[:4] != b"PK\x03\x04":
        return None
    fields = _LOCAL.unpack(header)
    start = member.header + _LOCAL.size + fields[9] + fields[10]
    end = start + member.size
    return (start, end) if end <= size else None


def _directory(read_at: ReadAt, size: int) -> tuple[int, int, int] | None:
    """Offset, length and member count of the central directory."""
    tail_start = max(0, size - _END.size - _MAX_COMMENT)
    tail = read_at(tail_start, size - tail_start)
    found = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - _END.size + 4))
    if found < 0:
        return None
    _, disk, first, here, count, length, offset, _ = _END.unpack_from(tail, found)
    if _ESCAPE16 in (disk, first, here, count) or _ESCAPE32 in (length, offset):
        return _directory64(read_at, tail_start + found)
    return (offset, length, count) if (disk, first) == (0, 0) and here == count else None


def _directory64(read_at: ReadAt, end: int) -> tuple[int, int, int] | None:
    position = end - _END64_LOCATOR.size
    record = read_at(position, _END64_LOCATOR.size) if position >= 0 else b""
    if len(record) != _END64_LOCATOR.size or record[:4] != b"PK\x06\x07":
        return None
    position = _END64_LOCATOR.unpack(record)[2]
    record = read_at(position, _END64.size) if position < end else b""
    if len(record) != _END64.size or record[:4] != b"PK\x06\x06":
        return None
    _, _, _, _, disk, first, here, count, length, offset = _END64.unpack(record)
    return (offset, length, count) if (disk, first) == (0, 0) and here == count else None


def _member(fields: tuple[int, ...], variable: bytes) -> Member | None:
    flags, method, compressed, size = fields[3], fields[4], fields[8], fields[9]
    name_length, extra_length, header = fields[10], fields[11], fields[16]
    if method != _STORED or flags & _ENCRYPTED:
        return None
    extra = variable[name_length : name_length + extra_length]
    wide = [value == _ESCAPE32 for value in (size, compressed, header)]
    if any(wide):
        values = _zip64_values(extra, sum(wide))
        if values is None:
            return None
        size = values.pop(0) if wide[0] else size
        compressed = values.pop(0) if wide[1] else compressed
        header = values.pop(0) if wide[2] else header
    if size != compressed:
        return None
    name = variable[:name_length].decode("utf-8", "replace")
    return Member(name, header, size)


def _zip64_values(extra: bytes, count: int) -> list[int] | None:
    """The first `count` 64-bit values of the zip64 field: those that are escaped in the entry, in order."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        position += 4
        if kind == _ZIP64_EXTRA:
            if length < 8 * count or position + 8 * count > len(extra):
                return None
            return list(struct.unpack_from(f"<{count}Q", extra, position))
        position += length
    return None
