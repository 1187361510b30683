"""The kernels in numpy, for machines without a compiler: the same bytes as kernels.c, some three times slower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from shardfs.codecs.base import Buffer
from shardfs.codecs.elements import RHO_UNIT, Element

_WORDS: Final = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_RHO_LOWEST: Final = -1
_RHO_BINS: Final = 640
_RESULT_EXPONENTS: Final = {"float32": (1, 254), "bfloat16": (1, 253), "float16": (113, 141)}


class NumpyKernels:
    """See `Kernels`."""

    name = "numpy"

    def any_sign(self, element: Element, data: Buffer, count: int) -> bool:
        """See `Kernels`."""
        return bool((_values(element, data, count) >> _top(element)).any())

    def split(self, element: Element, data: Buffer, count: int, *, rotate: bool) -> list[memoryview]:
        """See `Kernels`."""
        values = _values(element, data, count)
        return _planes(element, values << 1 | values >> _top(element) if rotate else values)

    def join(self, element: Element, planes: Sequence[Buffer], count: int, tail: Buffer, *, rotate: bool) -> bytes:
        """See `Kernels`."""
        values = _joined(element, planes, count)
        return _finished(values >> 1 | values << _top(element) if rotate else values, tail)

    def fit(self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int) -> int:
        """See `Kernels`."""
        values = (_values(element, buffer, count)[:: count >> 11 | 1] for buffer in (data, *bases))
        new, last, before = (_widened(element, some).view("<f4") for some in values)
        with np.errstate(all="ignore"):
            step = last - before
            place = ((new - last) / step - np.float32(_RHO_LOWEST)) * np.float32(RHO_UNIT)
        place = place[(step != 0) & ~np.isnan(place)]
        if not place.size:
            return 0
        bins = np.clip(place, 0, _RHO_BINS - 1).astype("<i4")
        return int(np.sort(bins)[bins.size // 2]) + _RHO_LOWEST * RHO_UNIT

    def subtract(
        self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int, rho: int
    ) -> list[memoryview]:
        """See `Kernels`."""
        last, *before = (_values(element, base, count) for base in bases)
        prediction = _predicted(element, last, before[0], rho) if before else last
        difference = _line(element, _values(element, data, count)) - _line(element, prediction)
        if before:
            difference = _turned(difference, _down(element, last, before[0]))
        folded = difference << 1 ^ -(difference >> _top(element))
        keys = _keys(element, last, *before)
        return _planes(element, folded if keys is None else folded[np.argsort(keys, kind="stable")])

    def add(
        self, element: Element, planes: Sequence[Buffer], bases: Sequence[Buffer], count: int, tail: Buffer, rho: int
    ) -> bytes:
        """See `Kernels`."""
        last, *before = (_values(element, base, count) for base in bases)
        folded = _joined(element, planes, count)
        keys = _keys(element, last, *before)
        if keys is not None:
            grouped, folded = folded, np.empty_like(folded)
            folded[np.argsort(keys, kind="stable")] = grouped
        difference = folded >> 1 ^ -(folded & 1)
        if before:
            difference = _turned(difference, _down(element, last, before[0]))
            last = _predicted(element, last, before[0], rho)
        return _finished(_line(element, _line(element, last) + difference), tail)

    def squares(self, plane: Buffer, step: int) -> int:
        """See `Kernels`."""
        counts = np.bincount(np.frombuffer(plane, "u1")[::step])
        return int(np.dot(counts, counts))

    def thin(self, plane: Buffer) -> tuple[memoryview, memoryview]:
        """See `Kernels`."""
        values = np.frombuffer(plane, "u1")
        here = values != 0
        return _view(np.packbits(here, bitorder="little")), _view(values[here])

    def thicken(self, bitmap: Buffer, others: Buffer, size: int) -> bytes | None:
        """See `Kernels`."""
        here: Any = np.unpackbits(np.frombuffer(bitmap, "u1"), bitorder="little").view("?")
        if here[size:].any() or int(np.count_nonzero(here)) != len(others):
            return None
        values: Any = np.zeros(size, "u1")
        values[here[:size]] = np.frombuffer(others, "u1")
        return bytes(values.tobytes())


def _values(element: Element, data: Buffer, count: int) -> Any:
    return np.frombuffer(data, _WORDS[element.width], count)


def _top(element: Element) -> int:
    return 8 * element.width - 1


def _planes(element: Element, values: Any) -> list[memoryview]:
    """The planes of little-endian words."""
    columns = np.ascontiguousarray(values.view("u1").reshape(-1, element.width).T)
    return [_view(column) for column in columns]


def _view(values: Any) -> memoryview:
    return memoryview(values)


def _joined(element: Element, planes: Sequence[Buffer], count: int) -> Any:
    values: Any = np.zeros(count, _WORDS[element.width])
    for place, plane in enumerate(planes):
        values |= np.frombuffer(plane, "u1").astype(values.dtype) << 8 * place
    return values


def _finished(values: Any, tail: Buffer) -> bytes:
    return bytes(values.tobytes() + bytes(tail))


def _line(element: Element, values: Any) -> Any:
    """Floats on the number line, and back."""
    if not element.is_float:
        return values
    return values ^ (-(values >> _top(element)) & ((1 << _top(element)) - 1))


def _keys(element: Element, last: Any, before: Any = None) -> Any:
    """The keys by which values are grouped; None if they are not."""
    if before is not None:
        step = _line(element, last) - _line(element, before)
        step ^= -(step >> _top(element))
        exponent = _widened(element, last) >> 23 & 15
        length = _length(step | 1) >> 1 & 15 if element.width == 4 else _length(step.astype("<u4") * 2 + 1)
        return (exponent << 4 | length).astype("u1")
    if not element.key_mask:
        return None
    return (last >> element.key_shift & element.key_mask).astype("u1")


def _length(marked: Any) -> Any:
    return (marked.astype("<f4").view("<u4") >> 23) - 127


def _down(element: Element, last: Any, before: Any) -> Any:
    """All bits set where the last step went down."""
    return -((_line(element, last) - _line(element, before)) >> _top(element))


def _turned(difference: Any, down: Any) -> Any:
    return (difference ^ down) - down


def _predicted(element: Element, last: Any, before: Any, rho: int) -> Any:
    a, b = _widened(element, last), _widened(element, before)
    with np.errstate(all="ignore"):
        step = (a.view("<f4") - b.view("<f4")) * np.float32(rho / RHO_UNIT)
        result = (a.view("<f4") + step).view("<u4")
    low, high = _RESULT_EXPONENTS[element.name]
    sound = _within(a, 32, 254) & _within(b, 1, 254) & _within(result, low, high)
    return np.where(sound, _narrowed(element, result), last).astype(last.dtype)


def _within(bits: Any, low: int, high: int) -> Any:
    exponent = bits >> 23 & 255
    return (exponent >= low) & (exponent <= high)


def _widened(element: Element, values: Any) -> Any:
    """The bits of float32, 0 for halves that are not normal numbers."""
    wide = values.astype("<u4")
    if element.name == "float32":
        return wide
    if element.name == "bfloat16":
        return wide << 16
    magnitude = wide & 0x7FFF
    normal = (magnitude >= 0x0400) & (magnitude < 0x7C00)
    return np.where(normal, (wide & 0x8000) << 16 | (magnitude << 13) + (112 << 23), 0).astype("<u4")


def _narrowed(element: Element, result: Any) -> Any:
    if element.name == "float32":
        return result
    if element.name == "bfloat16":
        return result + 0x8000 >> 16
    return result >> 16 & 0x8000 | (result & 0x7FFFFFFF) - (112 << 23) + 0x1000 >> 13
