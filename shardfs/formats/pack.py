"""Pack: a write-once file of encoded chunks and objects that describes itself from its end.

Spec: docs/design/format/pack.md. Layout: header || payloads || table || trailer; all integers little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import zstandard
from blake3 import blake3

from shardfs.errors import MalformedError, UnsupportedVersionError
from shardfs.formats.canonical import MAX_OBJECT_SIZE
from shardfs.formats.ids import ID_SIZE, Kind
from shardfs.formats.manifest import MAX_CHUNK_SIZE
from shardfs.formats.zstdframe import decompress_exact

VERSION: Final = 2
_READABLE: Final = (1, 2)  # version 1 has room for one base
MAGIC: Final = b"SHRDPACK"
END_MAGIC: Final = b"SHRDPEND"
HEADER: Final = MAGIC + struct.pack("<HHI", VERSION, 0, 0)
MAX_PACK_SIZE: Final = 1 << 30  # bytes
MAX_ENTRIES: Final = 1 << 20

_RECORD = struct.Struct("<32s32s32sBBHIIQ")  # id, two bases, kind, codec, 0, stored size, raw size, offset
_RECORD_1 = struct.Struct("<32s32sBBHIIQ")
MAX_BASES: Final = 2
_TRAILER = struct.Struct("<QII32sHH4x8s")  # table offset, table size, entries, BLAKE3 of table, version, 0, magic
TRAILER_SIZE: Final = _TRAILER.size
_NO_BASE: Final = bytes(ID_SIZE)


class Entry(NamedTuple):
    """One payload of a pack.

    Attributes:
        id: id of the plaintext.
        kind: what the id names.
        codec: code of the codec that decodes the payload.
        offset: bytes from the start of the pack.
        stored_size: bytes of the payload, 0 to raw_size.
        raw_size: bytes of the plaintext.
        bases: ids of the chunks that the codec needs to decode, at most `MAX_BASES`.
    """

    id: bytes
    kind: Kind
    codec: int
    offset: int
    stored_size: int
    raw_size: int
    bases: tuple[bytes, ...] = ()


class Trailer(NamedTuple):
    """Where the table of a pack is, what it must hash to, and the version of the pack."""

    table_offset: int
    table_size: int
    entry_count: int
    table_hash: bytes
    version: int = VERSION


def max_raw_size(kind: Kind) -> int:
    """The most plaintext bytes that an entry of this kind may declare."""
    return MAX_CHUNK_SIZE if kind is Kind.CHUNK else MAX_OBJECT_SIZE


def max_table_size(entry_count: int) -> int:
    """The most bytes of a table of so many entries: what zstd makes of bytes that do not compress."""
    records = entry_count * _RECORD.size
    return records + (records >> 8) + 128


def tail_to_bytes(entries: Sequence[Entry], table_offset: int) -> bytes:
    """Table and trailer of a pack whose payloads end at `table_offset`."""
    records = b"".join(
        _RECORD.pack(e.id, *_two(e.bases), e.kind, e.codec, 0, e.stored_size, e.raw_size, e.offset) for e in entries
    )
    table = zstandard.ZstdCompressor(level=3).compress(records)
    digest = blake3(table).digest()
    trailer = _TRAILER.pack(table_offset, len(table), len(entries), digest, VERSION, 0, END_MAGIC)
    return table + trailer


def parse_header(data: bytes) -> None:
    """Check the first bytes of a pack.

    Raises:
        MalformedError: not a pack. UnsupportedVersionError: of a newer version.
    """
    if data[: len(MAGIC)] != MAGIC or len(data) < len(HEADER):
        msg = "not a pack: wrong first bytes"
        raise MalformedError(msg)
    _check_version(int.from_bytes(data[8:10], "little"))
    if any(data[10 : len(HEADER)]):
        msg = "pack header has unknown flags"
        raise MalformedError(msg)


def parse_trailer(data: bytes, pack_size: int) -> Trailer:
    """The trailer in the last `TRAILER_SIZE` bytes of a pack of `pack_size` bytes.

    Raises:
        MalformedError: wrong magic or limits. UnsupportedVersionError: of a newer version.
    """
    if len(data) != TRAILER_SIZE:
        msg = f"pack of {pack_size} bytes is too short"
        raise MalformedError(msg)
    offset, size, count, digest, version, flags, magic = _TRAILER.unpack(data)
    if magic != END_MAGIC:
        msg = "not a whole pack: wrong last bytes"
        raise MalformedError(msg)
    _check_version(version)
    fits = offset >= len(HEADER) and offset + size + TRAILER_SIZE == pack_size and size <= max_table_size(count)
    if not fits or flags or data[52:56] != bytes(4) or count > MAX_ENTRIES or pack_size > MAX_PACK_SIZE:
        msg = "pack trailer is out of limits"
        raise MalformedError(msg)
    return Trailer(offset, size, count, digest, version)


def parse_table(table: bytes, trailer: Trailer) -> list[Entry]:
    """The entries of a pack, in the order of their payloads.

    Raises:
        MalformedError: wrong hash, wrong length, unknown kind, sizes or offsets out of limits.
    """
    if blake3(table).digest() != trailer.table_hash:
        msg = "pack table does not match its hash"
        raise MalformedError(msg)
    record = _RECORD_1 if trailer.version == 1 else _RECORD
    records = decompress_exact(table, trailer.entry_count * record.size)
    entries = [_entry(fields[0], fields[1:-6], fields[-6:]) for fields in record.iter_unpack(records)]
    _check_layout(entries, trailer.table_offset)
    return entries


def _check_version(version: int) -> None:
    if version not in _READABLE:
        msg = f"pack of version {version}; this program reads version {VERSION}"
        raise UnsupportedVersionError(msg)


def _two(bases: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    first, second = (*bases, _NO_BASE, _NO_BASE)[:MAX_BASES]
    return first, second


def _entry(ident: bytes, bases: tuple[bytes, ...], numbers: tuple[int, int, int, int, int, int]) -> Entry:
    kind_code, codec, reserved, stored, raw, offset = numbers
    try:
        kind = Kind(kind_code)
    except ValueError as error:
        msg = f"pack entry of unknown kind {kind_code}"
        raise MalformedError(msg) from error
    if reserved or raw > max_raw_size(kind) or stored > raw:
        msg = f"pack entry {ident.hex()[:12]} declares sizes out of limits"
        raise MalformedError(msg)
    named = tuple(base for base in bases if base != _NO_BASE)
    if named != bases[: len(named)]:
        msg = f"pack entry {ident.hex()[:12]} has a second base and no first"
        raise MalformedError(msg)
    return Entry(ident, kind, codec, offset, stored, raw, named)


def _check_layout(entries: Iterable[Entry], end: int) -> None:
    """Payloads follow each other without gap or overlap from the header to the table."""
    position = len(HEADER)
    for entry in entries:
        if entry.offset != position:
            msg = f"pack entry {entry.id.hex()[:12]} is not where the one before ends"
            raise MalformedError(msg)
        position += entry.stored_size
    if position != end:
        msg = "pack payloads do not reach the table"
        raise MalformedError(msg)
