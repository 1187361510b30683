"""Codecs: every plaintext comes back, and no payload makes more than was promised."""

from __future__ import annotations

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shardfs.codecs import registry
from shardfs.codecs.registry import RAW, ZSTD
from shardfs.errors import FormatError, MalformedError

DATA = st.binary(max_size=500) | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=20), st.integers(1, 3000))


@given(DATA)
def test_every_plaintext_comes_back(data: bytes) -> None:
    chosen = registry.encode(data)
    assert registry.decode(chosen.codec, chosen.payload, len(data)) == data
    assert len(chosen.payload) <= len(data)
    for codec in (RAW, ZSTD):
        assert codec.decode(codec.encode(data), len(data)) == data


@given(st.integers(0, 255), st.binary(max_size=300), st.integers(0, 1 << 20))
def test_arbitrary_payloads(code: int, payload: bytes, raw_size: int) -> None:
    try:
        assert len(registry.decode(code, payload, raw_size)) == raw_size
    except FormatError:
        return


@given(DATA, st.integers(0, 10_000), st.integers(0, 1 << 16), st.binary(max_size=20), st.integers(0, 3000))
def test_changed_frames(data: bytes, raw_size: int, bit: int, more: bytes, cut: int) -> None:
    """Flipped, truncated, continued, and with another promise: as long as promised, or refused."""
    frame = ZSTD.encode(data)
    flipped = bytearray(frame)
    flipped[bit // 8 % len(frame)] ^= 1 << bit % 8
    for payload in (frame, bytes(flipped), frame[:cut], frame + more, frame + frame, more + frame):
        for promised in {raw_size, len(data)}:
            try:
                plaintext = ZSTD.decode(payload, promised)
            except MalformedError:
                continue
            assert len(plaintext) == promised
            if payload == frame:
                assert plaintext == data


@given(st.integers(1, 1 << 62), st.booleans())
def test_huge_declared_sizes_allocate_nothing(size: int, checksum: bool) -> None:
    """A frame header that declares up to 4 EiB, as a bomb would."""
    header = b"\x28\xb5\x2f\xfd" + bytes([0b11100000 | checksum << 2]) + size.to_bytes(8, "little")
    assert zstandard.frame_content_size(header) == size
    for promised in (0, 16, 1 << 20):
        if promised != size:
            try:
                ZSTD.decode(header + b"\1\0\0", promised)
            except MalformedError:
                continue
            raise AssertionError(promised)
