"""The compiled kernels (kernels.c), through ctypes, which lets other threads run meanwhile."""

from __future__ import annotations

import ctypes
import os.path
from collections.abc import Callable, Sequence
from typing import Any, Final

from shardfs.codecs.base import Buffer
from shardfs.codecs.elements import RHO_UNIT, Element
from shardfs.codecs.memory import address_of, scratch, unfilled_bytes

LIBRARY: Final = os.path.join(os.path.dirname(__file__), "libshardfs_kernels.so")  # noqa: PTH118, PTH120
_VERSION: Final = 2  # kernels_version() in kernels.c; another one is a library that was left behind
_FLOATS: Final = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}

_AT = ctypes.c_void_p
_COUNT = ctypes.c_size_t
_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "any_sign": (ctypes.c_int, [_AT, _COUNT]),
    "split": (None, [_AT, _COUNT, ctypes.c_int, _AT]),
    "join": (None, [ctypes.POINTER(ctypes.c_void_p), _COUNT, ctypes.c_int, _AT]),
    "keys": (None, [_AT, _COUNT, ctypes.c_int, ctypes.c_int, _AT]),
    "subtract": (None, [_AT, _AT, _COUNT, ctypes.c_uint64, _AT]),
    "add": (None, [_AT, _AT, _COUNT, ctypes.c_uint64, _AT]),
    "group": (None, [_AT, _AT, _COUNT, _AT]),
    "ungroup": (None, [_AT, _AT, _COUNT, _AT]),
}
_FLOAT_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "step_subtract": (None, [_AT, _AT, _AT, _COUNT, ctypes.c_float, _AT]),
    "step_add": (None, [_AT, _AT, _AT, _COUNT, ctypes.c_float, _AT]),
    "step_keys": (None, [_AT, _AT, _COUNT, _AT]),
    "fit": (ctypes.c_int, [_AT, _AT, _AT, _COUNT]),
}
_PLANE_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "thin": (_COUNT, [_AT, _COUNT, _AT, _AT]),
    "squares": (ctypes.c_uint64, [_AT, _COUNT, _COUNT]),
    "thicken": (ctypes.c_int, [_AT, _AT, _COUNT, _COUNT, _AT]),
}


def load(path: str = LIBRARY) -> CKernels | None:
    """The kernels of a library; None if there is none, or not one that this program can use."""
    try:
        library = ctypes.CDLL(path)
        return CKernels(library) if library.kernels_version() == _VERSION else None
    except (OSError, AttributeError):
        return None


class CKernels:
    """Checks no sizes: the callers do.

    Raises:
        AttributeError: the library lacks a function.
    """

    name = "compiled"

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[tuple[str, int | str], Callable[..., Any]] = {}
        for stem, signature in _PLANE_SIGNATURES.items():
            self._functions[stem, ""] = _typed(library, stem, signature)
        for width in (1, 2, 4, 8):
            for stem, signature in _SIGNATURES.items():
                self._functions[stem, width] = _typed(library, f"{stem}_{8 * width}", signature)
        for name, short in _FLOATS.items():
            for stem, signature in _FLOAT_SIGNATURES.items():
                self._functions[stem, name] = _typed(library, f"{stem}_{short}", signature)

    def any_sign(self, element: Element, data: Buffer, count: int) -> bool:
        """See `Kernels`."""
        return bool(self._functions["any_sign", element.width](address_of(data), count))

    def split(self, element: Element, data: Buffer, count: int, *, rotate: bool) -> list[memoryview]:
        """See `Kernels`."""
        planes = scratch("values", count * element.width)
        self._functions["split", element.width](address_of(data), count, rotate, address_of(planes))
        return _cut(planes, count)

    def join(self, element: Element, planes: Sequence[Buffer], count: int, tail: Buffer, *, rotate: bool) -> bytes:
        """See `Kernels`."""
        made = unfilled_bytes(count * element.width + len(tail))
        self._functions["join", element.width](_addresses(planes), count, rotate, address_of(made))
        _append(made, count * element.width, tail)
        return made

    def fit(self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int) -> int:
        """See `Kernels`."""
        return int(self._functions["fit", element.name](address_of(data), *map(address_of, bases), count))

    def subtract(
        self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int, rho: int
    ) -> list[memoryview]:
        """See `Kernels`."""
        size = count * element.width
        values, others = scratch("values", size), scratch("others", size)
        bases_at = [address_of(base) for base in bases]
        how: float
        if len(bases) == 1:
            subtract, how = self._functions["subtract", element.width], _flip(element)
        else:
            subtract, how = self._functions["step_subtract", element.name], rho / RHO_UNIT
        subtract(address_of(data), *bases_at, count, how, address_of(values))
        if keys := self._keys(element, bases_at, count):
            self._functions["group", element.width](address_of(values), keys, count, address_of(others))
            values, others = others, values
        self._functions["split", element.width](address_of(values), count, 0, address_of(others))
        return _cut(others, count)

    def add(
        self, element: Element, planes: Sequence[Buffer], bases: Sequence[Buffer], count: int, tail: Buffer, rho: int
    ) -> bytes:
        """See `Kernels`."""
        size = count * element.width
        made = unfilled_bytes(size + len(tail))
        how: float
        made_at, values_at = address_of(made), address_of(scratch("values", size))
        bases_at = [address_of(base) for base in bases]
        self._functions["join", element.width](_addresses(planes), count, 0, values_at)
        if keys := self._keys(element, bases_at, count):
            self._functions["ungroup", element.width](values_at, keys, count, made_at)
            values_at = made_at
        if len(bases) == 1:
            add, how = self._functions["add", element.width], _flip(element)
        else:
            add, how = self._functions["step_add", element.name], rho / RHO_UNIT
        add(values_at, *bases_at, count, how, made_at)
        _append(made, size, tail)
        return made

    def squares(self, plane: Buffer, step: int) -> int:
        """See `Kernels`."""
        return int(self._functions["squares", ""](address_of(plane), len(plane), step))

    def thin(self, plane: Buffer) -> tuple[memoryview, memoryview]:
        """See `Kernels`."""
        # One more byte: the loop stores before it knows whether it must.
        bitmap, rest = scratch("bitmap", (len(plane) + 7) // 8), scratch("rest", len(plane) + 1)
        found = self._functions["thin", ""](address_of(plane), len(plane), address_of(bitmap), address_of(rest))
        return bitmap, rest[:found]

    def thicken(self, bitmap: Buffer, others: Buffer, size: int) -> bytes | None:
        """See `Kernels`."""
        made = unfilled_bytes(size)
        arguments = (address_of(bitmap), address_of(others), len(others), size, address_of(made))
        return made if self._functions["thicken", ""](*arguments) else None

    def _keys(self, element: Element, bases_at: Sequence[int], count: int) -> int | None:
        """The address of the keys by which values are grouped; None if they are not."""
        if len(bases_at) == 1 and not element.key_mask:
            return None
        keys = address_of(scratch("keys", count))
        if len(bases_at) == 1:
            self._functions["keys", element.width](*bases_at, count, element.key_shift, element.key_mask, keys)
        else:
            self._functions["step_keys", element.name](*bases_at, count, keys)
        return keys


def _typed(library: ctypes.CDLL, name: str, signature: tuple[Any, list[Any]]) -> Callable[..., Any]:
    function = getattr(library, name)
    function.restype, function.argtypes = signature
    return function  # type: ignore[no-any-return]


def _flip(element: Element) -> int:
    """The bits that turn over when a negative float goes to its place on the number line."""
    return (1 << 8 * element.width - 1) - 1 if element.is_float else 0


def _addresses(planes: Sequence[Buffer]) -> Any:
    return (ctypes.c_void_p * len(planes))(*map(address_of, planes))


def _cut(planes: memoryview, count: int) -> list[memoryview]:
    return [planes[start : start + count] for start in range(0, len(planes), count)]


def _append(made: bytes, size: int, tail: Buffer) -> None:
    if tail:
        ctypes.memmove(address_of(made) + size, bytes(tail), len(tail))
