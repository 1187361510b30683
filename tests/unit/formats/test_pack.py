"""The tail of a pack: what is written is read, and nothing else is."""

from __future__ import annotations

import struct

import pytest
import zstandard
from blake3 import blake3

from shardfs.errors import MalformedError, UnsupportedVersionError
from shardfs.formats import pack
from shardfs.formats.ids import Kind
from shardfs.formats.manifest import MAX_CHUNK_SIZE
from shardfs.formats.pack import HEADER, MAX_PACK_SIZE, TRAILER_SIZE, Entry, Trailer
from shardfs.formats.zstdframe import decompress_exact

START = len(HEADER)
ENTRIES = [
    Entry(b"\1" * 32, Kind.CHUNK, 0, START, 10, 10),
    Entry(b"\2" * 32, Kind.CHUNK, 2, START + 10, 0, 20, (b"\1" * 32, b"\3" * 32)),
    Entry(b"\3" * 32, Kind.COMMIT, 1, START + 10, 5, 9),
]
END = START + 15


def _parse(tail: bytes, offset: int = END) -> list[Entry]:
    trailer = pack.parse_trailer(tail[-TRAILER_SIZE:], offset + len(tail))
    return pack.parse_table(tail[: trailer.table_size], trailer)


def _with_table(records: bytes, count: int, frame: bytes | None = None, offset: int = END) -> tuple[bytes, Trailer]:
    table = zstandard.compress(records) if frame is None else frame
    return table, Trailer(offset, len(table), count, blake3(table).digest())


def test_a_tail_comes_back() -> None:
    assert _parse(pack.tail_to_bytes(ENTRIES, END)) == ENTRIES
    assert _parse(pack.tail_to_bytes([], START), START) == []


def test_the_header_is_strict() -> None:
    pack.parse_header(HEADER + b"anything")
    for data in (b"", HEADER[:-1], b"X" + HEADER[1:], HEADER[:12] + b"\1\0\0\0"):
        with pytest.raises(MalformedError):
            pack.parse_header(data)
    with pytest.raises(UnsupportedVersionError, match="version 3"):
        pack.parse_header(HEADER[:8] + b"\3\0" + HEADER[10:])


def _trailer(
    offset: int, size: int, count: int, *, version: int = pack.VERSION, flags: int = 0, pad: bytes = bytes(4)
) -> bytes:
    return struct.pack("<QII32sHH4s8s", offset, size, count, bytes(32), version, flags, pad, b"SHRDPEND")


@pytest.mark.parametrize(
    ("data", "pack_size"),
    [
        (b"", 0),
        (_trailer(16, 100, 1)[:-1], 180),
        (_trailer(16, 100, 1), 181),
        (_trailer(15, 100, 1), 179),
        (_trailer(2**64 - 1, 100, 1), 180),
        (_trailer(16, 100, (1 << 20) + 1), 180),
        (_trailer(16, 100, 1, flags=1), 180),
        (_trailer(16, 100, 1, pad=b"\0\0\0\1"), 180),
        (_trailer(16, MAX_PACK_SIZE, 1 << 20), MAX_PACK_SIZE + 80),
        (_trailer(16, pack.max_table_size(1) + 1, 1), pack.max_table_size(1) + 81),
        (_trailer(16, 1 << 29, 5), (1 << 29) + 80),
    ],
)
def test_trailers_out_of_limits_are_refused(data: bytes, pack_size: int) -> None:
    assert pack.parse_trailer(_trailer(16, 100, 1), 180).entry_count == 1
    with pytest.raises(MalformedError):
        pack.parse_trailer(data, pack_size)


def test_a_newer_trailer_is_named_as_such() -> None:
    with pytest.raises(UnsupportedVersionError, match="version 7"):
        pack.parse_trailer(_trailer(16, 100, 1, version=7), 180)


def _record(**changes: int | bytes) -> bytes:
    fields: dict[str, int | bytes] = {"id": b"\1" * 32, "base": bytes(32), "second": bytes(32)}
    fields |= {"kind": 1, "codec": 0, "zero": 0, "stored": 15, "raw": 15, "offset": START} | changes
    return struct.pack("<32s32s32sBBHIIQ", *fields.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": 0},
        {"kind": 5},
        {"zero": 1},
        {"second": b"\2" * 32},
        {"stored": 16},
        {"raw": 14},
        {"raw": MAX_CHUNK_SIZE + 1},
        {"kind": 3, "raw": (64 << 20) + 1},
        {"offset": START + 1},
        {"offset": 0},
        {"stored": 14},
        {"offset": 2**64 - 1},
    ],
)
def test_entries_out_of_limits_are_refused(changes: dict[str, int | bytes]) -> None:
    table, trailer = _with_table(_record(), 1)
    assert pack.parse_table(table, trailer)[0].raw_size == 15
    table, trailer = _with_table(_record(**changes), 1)
    with pytest.raises(MalformedError):
        pack.parse_table(table, trailer)


def test_tables_of_version_1_have_one_base() -> None:
    record = struct.pack("<32s32sBBHIIQ", b"\1" * 32, b"\2" * 32, 1, 0, 0, 15, 15, START)
    table, trailer = _with_table(record, 1)
    [entry] = pack.parse_table(table, trailer._replace(version=1))
    assert entry.bases == (b"\2" * 32,)
    pack.parse_header(HEADER[:8] + b"\1\0" + HEADER[10:])


def test_an_unknown_codec_does_not_spoil_the_table() -> None:
    table, trailer = _with_table(_record(codec=255), 1)
    assert pack.parse_table(table, trailer)[0].codec == 255


def test_a_table_of_another_length_is_refused() -> None:
    for records, count in ((_record() + b"x", 1), (_record(), 2), (_record() * 2, 1), (b"", 1)):
        table, trailer = _with_table(records, count)
        with pytest.raises(MalformedError):
            pack.parse_table(table, trailer)


def test_a_table_that_does_not_hash_to_its_trailer_is_refused() -> None:
    table, trailer = _with_table(_record(), 1)
    with pytest.raises(MalformedError, match="hash"):
        pack.parse_table(table, trailer._replace(table_hash=bytes(32)))


def test_incompressible_tables_are_within_their_limit() -> None:
    for count in (1, 7, 100, 5000):
        entries = []
        position = START
        for i in range(count):
            ident = blake3(b"%d" % i).digest()
            bases = (blake3(ident).digest(), blake3(ident + b"2").digest())
            entries.append(Entry(ident, Kind.CHUNK, 0, position, 3, 3, bases))
            position += 3
        tail = pack.tail_to_bytes(entries, position)
        assert len(tail) - TRAILER_SIZE <= pack.max_table_size(count)
        assert _parse(tail, position) == entries


# The bounded decoder under it


def test_frames_that_are_not_exactly_what_was_promised_are_refused() -> None:
    data = b"abc" * 1000
    frame = zstandard.compress(data)
    assert decompress_exact(frame, 3000) == data
    assert decompress_exact(zstandard.compress(b""), 0) == b""
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(data)
    skippable = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"abcd"
    bomb = zstandard.compress(bytes(1 << 20))
    for bad, size in (
        (frame, 2999),
        (frame, 3001),
        (frame[:-1], 3000),
        (frame[:5], 3000),
        (b"", 0),
        (b"", 3000),
        (b"\0" * 20, 20),
        (unsized, 3000),
        (frame + b"\0", 3000),
        (frame + frame, 3000),
        (frame + skippable, 3000),
        (skippable, 0),
        (bomb, 16),
    ):
        with pytest.raises(MalformedError):
            decompress_exact(bad, size)
