"""What payloads of planes refuse."""

from __future__ import annotations

import struct

import pytest
import zstandard

from shardfs.codecs.elements import FLOAT32, INT8, INT16
from shardfs.codecs.registry import DELTA1, DELTA2, PLANES
from shardfs.errors import MalformedError

ZEROS = zstandard.ZstdCompressor().compress(bytes(100))


def plane(kind: int, body: bytes, said: int | None = None) -> bytes:
    """One int8 plane as a payload."""
    return bytes((INT8.code, 0)) + struct.pack("<BI", kind, len(body) if said is None else said) + body


def sparse(count: int, *parts: tuple[int, bytes]) -> bytes:
    heads = b"".join(struct.pack("<BI", kind, len(body)) for kind, body in parts)
    return plane(2, struct.pack("<I", count) + heads + b"".join(body for _, body in parts))


def test_the_three_kinds() -> None:
    assert PLANES.decode(plane(0, b"ab"), 2) == b"ab"
    assert PLANES.decode(plane(1, ZEROS), 100) == bytes(100)
    assert PLANES.decode(sparse(2, (0, b"\x82\x00"), (0, b"ab")), 9) == b"\0a\0\0\0\0\0b\0"


@pytest.mark.parametrize(
    ("payload", "size"),
    [
        (b"", 0),
        (b"\0", 0),
        (b"\0\0", 0),
        (b"\x09\0" + plane(0, b"ab")[2:], 2),  # no such element
        (b"\0\1" + plane(0, b"ab")[2:], 2),  # integers have no sign to rotate
        (b"\7\2" + bytes(20), 0),  # an unknown flag
        (plane(0, b"ab")[:-1], 2),
        (plane(0, b"ab") + b"c", 2),
        (plane(0, b"abc"), 2),
        (plane(0, b"ab", 3), 2),
        (plane(3, b"ab"), 2),
        (plane(1, ZEROS), 99),
        (plane(1, ZEROS[:-1]), 100),
        (plane(1, ZEROS + ZEROS), 100),
        (plane(2, b"\0\0\0"), 8),
        (sparse(0), 8),
        (sparse(9, (0, b"\xff"), (0, bytes(9))), 8),  # more than there are
        (sparse(2, (0, b"\x01"), (0, b"ab")), 8),  # fewer bits than bytes
        (sparse(1, (0, b"\x03"), (0, b"a")), 8),  # more bits than bytes
        (sparse(1, (0, b"\x80"), (0, b"a")), 7),  # a bit behind the end
        (sparse(1, (0, b"\x01\x00"), (0, b"a")), 8),
        (sparse(1, (2, struct.pack("<I", 0)), (0, b"a")), 8),  # a sparse plane within one
    ],
)
def test_malformed_planes(payload: bytes, size: int) -> None:
    with pytest.raises(MalformedError):
        PLANES.decode(payload, size)


def test_a_tail_shorter_than_a_value_is_kept() -> None:
    for size in range(9):
        data = bytes(range(size))
        payload = PLANES.encode(data, FLOAT32)
        assert PLANES.decode(payload, size) == data
        assert size % 4 == 0 or payload.endswith(data[-(size % 4) :])


def test_malformed_deltas() -> None:
    good = DELTA1.encode(b"abcd", INT16, b"abcd")
    assert DELTA1.decode(good, 4, [b"abcd"]) == b"abcd"
    for payload, size in ((good, 5), (b"\1\1" + good[2:], 4), (good[:-1], 4), (good + b"x", 4), (bytes((1, 0)), 0)):
        with pytest.raises(MalformedError):
            DELTA1.decode(payload, size, [bytes(size)])
    for element in (INT16.code, 8):  # nothing extrapolates these
        with pytest.raises(MalformedError):
            DELTA2.decode(bytes((element, 0, 0, 0)) + good[2:], 4, [b"abcd", b"abcd"])
    with pytest.raises(MalformedError):
        DELTA2.decode(bytes((FLOAT32.code, 0, 0)), 4, [b"abcd", b"abcd"])
