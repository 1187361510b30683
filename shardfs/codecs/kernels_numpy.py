"""The kernels in numpy, for machines without a compiler: the same bytes as kernels.c, some three times slower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from shardfs.codecs.base import Buffer
from shardfs.codecs.elements import Element

_WORDS: Final = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
_FIT_STRIDE: Final = 7
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

    def fit(self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int) -> float:
        """See `Kernels`."""
        new, last, before = (
            _widened(element, _values(element, buffer, count)[::_FIT_STRIDE]).view("<f4") for buffer in (data, *bases)
        )
        with np.errstate(all="ignore"):
            step, next_step = (last - before).astype("<f8"), (new - last).astype("<f8")
            both, alone = step * next_step, step * step
            limit = float(np.finfo("<f4").max)
            kept = (alone <= limit) & (both <= limit) & (both >= -limit)
            # Added one by one, as the compiled loop does: np.sum adds in pairs and rounds otherwise.
            product, square = (np.cumsum(np.append(0.0, part[kept]))[-1] for part in (both, alone))
        return float(product / square) if square > 0 else 0.0

    def subtract(
        self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int, rho: float
    ) -> list[memoryview]:
        """See `Kernels`."""
        prediction, keys = _predicted(element, bases, count, rho)
        difference = _line(element, _values(element, data, count)) - _line(element, prediction)
        folded = difference << 1 ^ -(difference >> _top(element))
        return _planes(element, folded if keys is None else folded[np.argsort(keys, kind="stable")])

    def add(
        self,
        element: Element,
        planes: Sequence[Buffer],
        bases: Sequence[Buffer],
        count: int,
        tail: Buffer,
        rho: float,
    ) -> bytes:
        """See `Kernels`."""
        prediction, keys = _predicted(element, bases, count, rho)
        folded = _joined(element, planes, count)
        if keys is not None:
            grouped, folded = folded, np.empty_like(folded)
            folded[np.argsort(keys, kind="stable")] = grouped
        return _finished(_line(element, _line(element, prediction) + (folded >> 1 ^ -(folded & 1))), tail)


def _values(element: Element, data: Buffer, count: int) -> Any:
    return np.frombuffer(data, _WORDS[element.width], count)


def _top(element: Element) -> int:
    return 8 * element.width - 1


def _planes(element: Element, values: Any) -> list[memoryview]:
    """The planes of little-endian words."""
    columns = np.ascontiguousarray(values.view("u1").reshape(-1, element.width).T)
    return [memoryview(column) for column in columns]


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


def _predicted(element: Element, bases: Sequence[Buffer], count: int, rho: float) -> tuple[Any, Any]:
    """The predicted values, and the keys of their groups or None."""
    last = _values(element, bases[0], count)
    if len(bases) == 2:
        before = _values(element, bases[1], count)
        return _extrapolated(element, last, before, rho), _step_keys(element, last, before)
    if not element.key_mask:
        return last, None
    return last, (last >> element.key_shift & element.key_mask).astype("u1")


def _extrapolated(element: Element, last: Any, before: Any, rho: float) -> Any:
    a, b = _widened(element, last), _widened(element, before)
    with np.errstate(all="ignore"):
        result = (a.view("<f4") + (a.view("<f4") - b.view("<f4")) * np.float32(rho)).view("<u4")
    low, high = _RESULT_EXPONENTS[element.name]
    sound = _within(a, 32, 254) & _within(b, 1, 254) & _within(result, low, high)
    return np.where(sound, _narrowed(element, result), last).astype(last.dtype)


def _within(bits: Any, low: int, high: int) -> Any:
    exponent = bits >> 23 & 255
    return (exponent >= low) & (exponent <= high)


def _step_keys(element: Element, last: Any, before: Any) -> Any:
    step = _line(element, last) - _line(element, before)
    step ^= -(step >> _top(element))
    exponent = _widened(element, last) >> 23 & 255
    if element.width == 4:
        return (_length(step | 1) << 3 | exponent & 7).astype("u1")
    return (_length(step.astype("<u4") * 2 + 1) << 4 | exponent & 15).astype("u1")


def _length(marked: Any) -> Any:
    return (marked.astype("<f4").view("<u4") >> 23) - 127


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
