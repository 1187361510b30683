"""The compiled kernels (kernels.c), through ctypes, which lets other threads run meanwhile."""

from __future__ import annotations

import ctypes
import os.path
from collections.abc import Callable, Sequence
from typing import Any, Final

from shardfs.codecs.base import Buffer
from shardfs.codecs.elements import Element
from shardfs.codecs.memory import address_of, scratch, unfilled_bytes

LIBRARY: Final = os.path.join(os.path.dirname(__file__), "libshardfs_kernels.so")  # noqa: PTH118, PTH120
_VERSION: Final = 1  # kernels_version() in kernels.c; another one is a library that was left behind
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
    "ungroup_add": (None, [_AT, _AT, _AT, _COUNT, ctypes.c_uint64, _AT]),
}
_FLOAT_SIGNATURES: Final[dict[str, tuple[Any, list[Any]]]] = {
    "predict": (None, [_AT, _AT, _COUNT, ctypes.c_float, _AT]),
    "step_keys": (None, [_AT, _AT, _COUNT, _AT]),
    "fit": (ctypes.c_double, [_AT, _AT, _AT, _COUNT]),
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
        planes = scratch("planes", count * element.width)
        self._functions["split", element.width](address_of(data), count, rotate, address_of(planes))
        return _cut(planes, count)

    def join(self, element: Element, planes: Sequence[Buffer], count: int, tail: Buffer, *, rotate: bool) -> bytes:
        """See `Kernels`."""
        made = unfilled_bytes(count * element.width + len(tail))
        self._functions["join", element.width](_addresses(planes), count, rotate, address_of(made))
        _append(made, count * element.width, tail)
        return made

    def fit(self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int) -> float:
        """See `Kernels`."""
        at = [address_of(buffer) for buffer in (data, *bases)]
        return float(self._functions["fit", element.name](*at, count))

    def subtract(
        self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int, rho: float
    ) -> list[memoryview]:
        """See `Kernels`."""
        size = count * element.width
        planes, words = scratch("planes", size), scratch("words", size)
        planes_at, words_at = address_of(planes), address_of(words)
        prediction, keys = self._predict(element, bases, count, rho, words_at)
        self._functions["subtract", element.width](address_of(data), prediction, count, _flip(element), planes_at)
        if keys:
            self._functions["group", element.width](planes_at, keys, count, words_at)
            planes_at, words_at = words_at, planes_at
            planes, words = words, planes
        self._functions["split", element.width](planes_at, count, 0, words_at)
        return _cut(words, count)

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
        size = count * element.width
        made = unfilled_bytes(size + len(tail))
        made_at, words_at = address_of(made), address_of(scratch("words", size))
        self._functions["join", element.width](_addresses(planes), count, 0, words_at)
        prediction, keys = self._predict(element, bases, count, rho, made_at)
        if keys:
            arguments = (words_at, keys, prediction, count, _flip(element), made_at)
            self._functions["ungroup_add", element.width](*arguments)
        else:
            self._functions["add", element.width](words_at, prediction, count, _flip(element), made_at)
        _append(made, size, tail)
        return made

    def _predict(
        self, element: Element, bases: Sequence[Buffer], count: int, rho: float, room: int
    ) -> tuple[int, int | None]:
        """Addresses of the predicted values, in `room` or in the base itself, and of the keys if values are grouped."""
        last = address_of(bases[0])
        if len(bases) == 1 and not element.key_mask:
            return last, None
        keys = address_of(scratch("keys", count))
        if len(bases) == 1:
            self._functions["keys", element.width](last, count, element.key_shift, element.key_mask, keys)
            return last, keys
        before = address_of(bases[1])
        self._functions["step_keys", element.name](last, before, count, keys)
        self._functions["predict", element.name](last, before, count, rho, room)
        return room, keys


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
