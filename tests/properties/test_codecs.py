"""Codecs: every plaintext comes back, and no payload makes more than was promised."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

import zstandard
from hypothesis import given
from hypothesis import strategies as st

from shardfs.codecs import registry
from shardfs.codecs.elements import ELEMENT_OF_DTYPE, ELEMENTS, Element
from shardfs.codecs.registry import DELTA1, DELTA2, PATCH, PLANES, RAW, ZSTD, Base
from shardfs.errors import FormatError, MalformedError

CODES = (RAW.code, ZSTD.code, PLANES.code, DELTA1.code, DELTA2.code, PATCH.code)
DATA = st.binary(max_size=500) | st.builds(lambda b, n: b * n, st.binary(min_size=1, max_size=20), st.integers(1, 3000))
DTYPES = st.none() | st.sampled_from(sorted(ELEMENT_OF_DTYPE)) | st.just("of the future")


@st.composite
def versions(draw: st.DrawFn, count: int = 3) -> list[bytes]:
    """The same bytes with a few changes, or other bytes, or bytes of another length."""
    first = draw(DATA)
    made = [first]
    for _ in range(count - 1):
        changed = bytearray(draw(st.sampled_from(made)))
        for place in draw(st.lists(st.integers(0, max(len(changed) - 1, 0)), max_size=5)) if changed else ():
            changed[place] = draw(st.integers(0, 255))
        made.append(draw(st.just(bytes(changed)) | st.just(bytes(changed)) | st.binary(max_size=100)))
    return made


@given(DATA)
def test_every_plaintext_comes_back(data: bytes) -> None:
    chosen = registry.encode(data)
    assert registry.decode(chosen.codec, chosen.payload, len(data)) == data
    assert len(chosen.payload) <= len(data)
    for codec in (RAW, ZSTD):
        assert codec.decode(codec.encode(data), len(data)) == data


@given(versions(), DTYPES, st.integers(0, 2))
def test_whatever_is_chosen_comes_back(versions: list[bytes], dtype: str | None, count: int) -> None:
    data, *others = versions
    bases = [Base(str(i).encode(), other) for i, other in enumerate(others[:count])]
    chosen = registry.encode(data, dtype, bases)
    assert len(chosen.payload) <= len(data)
    assert chosen.bases == tuple(base.id for base in bases)[: len(chosen.bases)]
    assert registry.codec_by_code(chosen.codec).base_count == len(chosen.bases)
    plaintexts = [base.data for base in bases[: len(chosen.bases)]]
    assert registry.decode(chosen.codec, chosen.payload, len(data), plaintexts) == data


def _payloads(data: bytes, bases: Sequence[bytes], element: Element) -> list[tuple[int, bytes, Sequence[bytes]]]:
    """A payload of every codec that can take these."""
    made: list[tuple[int, bytes, Sequence[bytes]]] = [(PLANES.code, PLANES.encode(data, element), ())]
    if bases[0]:
        made.append((PATCH.code, PATCH.encode(data, bases[0]), bases[:1]))
    if len(data) >= element.width and len(data) == len(bases[0]) == len(bases[1]):
        made.append((DELTA1.code, DELTA1.encode(data, element, bases[0]), bases[:1]))
        if element.predictable:
            made.append((DELTA2.code, DELTA2.encode(data, element, bases), bases))
    return made


@given(versions(), st.sampled_from(list(ELEMENTS.values())))
def test_every_codec_gives_every_plaintext_back(versions: list[bytes], element: Element) -> None:
    """Also where another one would have been chosen."""
    data, *bases = versions
    for code, payload, needed in _payloads(data, bases, element):
        assert registry.decode(code, payload, len(data), needed) == data


@given(
    st.sampled_from(CODES) | st.integers(0, 255), st.binary(max_size=300), st.integers(0, 1 << 20), st.integers(0, 3)
)
def test_arbitrary_payloads(code: int, payload: bytes, raw_size: int, bases: int) -> None:
    with suppress(FormatError):
        assert len(registry.decode(code, payload, raw_size, [bytes(raw_size)] * bases)) == raw_size


@given(
    versions(),
    st.sampled_from(list(ELEMENTS.values())),
    st.integers(0, 1 << 16),
    st.integers(-9, 9),
    st.binary(max_size=20),
)
def test_changed_payloads(versions: list[bytes], element: Element, bit: int, off: int, more: bytes) -> None:
    """Flipped, truncated, continued, and with another promise: as long as promised, or refused."""
    data, *bases = versions
    for code, payload, needed in _payloads(data, bases, element):
        flipped = bytearray(payload)
        flipped[bit // 8 % len(payload)] ^= 1 << bit % 8
        for broken in (payload, bytes(flipped), payload[: bit % len(payload)], payload + more, more + payload):
            for promised in {len(data), max(0, len(data) + off)}:
                with suppress(MalformedError):
                    plaintext = registry.decode(code, broken, promised, needed)
                    assert len(plaintext) == promised
                    if broken == payload:
                        assert (promised, plaintext) == (len(data), data)
        for wrong in ((), needed[:1], [*needed, b""]):
            if len(wrong) != len(needed):
                with suppress(MalformedError):
                    registry.decode(code, payload, len(data), wrong)
                    raise AssertionError(code)


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
    frame = header + b"\1\0\0"
    planes = bytes((0, 0, 1)) + len(frame).to_bytes(4, "little") + frame
    for promised in (0, 16, 1 << 20):
        if promised != size:
            bases = (bytes(promised),)
            for code, payload, needed in (
                (ZSTD.code, frame, ()),
                (PLANES.code, planes, ()),
                (DELTA1.code, planes, bases),
                (PATCH.code, frame, (b"x",)),
            ):
                try:
                    registry.decode(code, payload, promised, needed)
                except MalformedError:
                    continue
                raise AssertionError(promised)
