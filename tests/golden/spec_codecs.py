"""A decoder of the float codecs as their page describes them: one value at a time, no kernels, no numpy."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

import zstandard

WIDTHS = {0: 8, 1: 16, 2: 32, 3: 64, 4: 8, 5: 16, 6: 16, 7: 32, 8: 64}
FLOATS = (4, 5, 6, 7, 8)
DELTA1_KEYS: dict[int, Callable[[int], int]] = {
    0: lambda y: y,
    4: lambda y: y,
    5: lambda y: y >> 10 & 31,
    6: lambda y: y >> 7 & 255,
    7: lambda y: y >> 23 & 255,
    8: lambda y: y >> 52 & 255,
}
RESULTS = {5: (113, 141), 6: (1, 253), 7: (1, 254)}


def decode(code: int, payload: bytes, raw_size: int, bases: Sequence[bytes]) -> bytes:
    """The plaintext of a sound payload of planes, delta1, delta2 or patch."""
    if code == 5:
        dictionary = zstandard.ZstdCompressionDict(bases[0], dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        return bytes(zstandard.ZstdDecompressor(dict_data=dictionary).decompress(payload))
    element, flags = payload[:2]
    rest = payload[4 if code == 4 else 2 :]
    width = WIDTHS[element] // 8
    count = raw_size // width
    planes = _planes(rest, [count] * width)
    values = [sum(planes[b][i] << 8 * b for b in range(width)) for i in range(count)]
    old = [_values(base, width, count) for base in bases]
    if code == 2 and flags == 1:
        values = [v >> 1 | (v & 1) << 8 * width - 1 for v in values]
    elif code == 3:
        if element in DELTA1_KEYS:
            values = _ungrouped(values, [DELTA1_KEYS[element](y) for y in old[0]])
        values = [_line(element, _line(element, y) + _unfolded(z)) for z, y in zip(values, old[0], strict=True)]
    elif code == 4:
        (rho,) = struct.unpack("<h", payload[2:4])
        steps = [_step(element, y, p) for y, p in zip(*old, strict=True)]
        values = _ungrouped(values, [_step_key(element, y, s) for y, s in zip(old[0], steps, strict=True)])
        turned = [_unfolded(z) if s >= 0 else -_unfolded(z) for z, s in zip(values, steps, strict=True)]
        predicted = [_line(element, _prediction(element, y, p, rho)) for y, p in zip(*old, strict=True)]
        values = [_line(element, q + d) for q, d in zip(predicted, turned, strict=True)]
    tail = rest[len(rest) - raw_size % width :]
    return b"".join(value.to_bytes(width, "little") for value in values) + tail


def _values(data: bytes, width: int, count: int) -> list[int]:
    return [int.from_bytes(data[i * width : (i + 1) * width], "little") for i in range(count)]


def _planes(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    at, planes = 5 * len(sizes), []
    for number, size in enumerate(sizes):
        kind, stored = struct.unpack("<BI", data[5 * number : 5 * number + 5])
        body = data[at : at + stored]
        at += stored
        if kind == 1:
            body = zstandard.ZstdDecompressor().decompress(body)
        elif kind == 2:
            (others,) = struct.unpack("<I", body[:4])
            bitmap, rest = _planes(body[4:], [(size + 7) // 8, others])
            following = iter(rest)
            body = bytes(next(following) if bitmap[i // 8] >> i % 8 & 1 else 0 for i in range(size))
        planes.append(body)
    return planes


def _ungrouped(values: Sequence[int], keys: Sequence[int]) -> list[int]:
    found = [0] * len(values)
    for value, place in zip(values, sorted(range(len(keys)), key=keys.__getitem__), strict=True):
        found[place] = value
    return found


def _line(element: int, value: int) -> int:
    width = WIDTHS[element]
    value %= 1 << width
    top = 1 << width - 1
    return value ^ (top - 1) if element in FLOATS and value & top else value


def _unfolded(z: int) -> int:
    return z >> 1 if z % 2 == 0 else -(z >> 1) - 1


def _step(element: int, y: int, p: int) -> int:
    width = WIDTHS[element]
    step = (_line(element, y) - _line(element, p)) % (1 << width)
    return step - (1 << width) if step >> width - 1 else step


def _float(bits: int) -> float:
    value: float = struct.unpack("<f", struct.pack("<I", bits))[0]
    return value


def _rounded(value: float) -> int:
    """The bits of the nearest float32."""
    try:
        bits: int = struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        return 0x7F800000
    return bits


def _exponent(bits: int) -> int:
    return bits >> 23 & 255


def _step_key(element: int, y: int, step: int) -> int:
    moved = step if step >= 0 else -step - 1
    length = (_exponent(_rounded(float(moved | 1))) - 127) // 2 if element == 7 else moved.bit_length()
    return (_exponent(_widened(element, y)) % 16) * 16 + length


def _widened(element: int, value: int) -> int:
    if element == 7:
        return value
    if element == 6:
        return value << 16
    if not 1 <= (value >> 10 & 31) <= 30:
        return 0
    return (value & 0x8000) << 16 | ((value & 0x7FFF) << 13) + (112 << 23)


def _prediction(element: int, y: int, p: int, rho: int) -> int:
    a, b = _widened(element, y), _widened(element, p)
    if not (32 <= _exponent(a) <= 254 and 1 <= _exponent(b) <= 254):
        return y
    # A float64 holds sums, differences and products of two float32 closely enough to be rounded once more.
    step = _float(_rounded(_float(a) - _float(b)))
    step = _float(_rounded(step * (rho / 256)))
    r = _rounded(_float(a) + step)
    low, high = RESULTS[element]
    if not low <= _exponent(r) <= high:
        return y
    if element == 7:
        return r
    if element == 6:
        return r + 0x8000 >> 16
    return r >> 16 & 0x8000 | (r & 0x7FFFFFFF) - (112 << 23) + 0x1000 >> 13
