"""What a model file holds, as far as its headers tell."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

ReadAt = Callable[[int, int], bytes]
"""`read_at(offset, size)`: that many bytes from there, fewer only where the file ends."""

DTYPE_BITS: Final = {
    "bool": 8,
    "uint8": 8,
    "int8": 8,
    "uint16": 16,
    "int16": 16,
    "uint32": 32,
    "int32": 32,
    "uint64": 64,
    "int64": 64,
    "float16": 16,
    "bfloat16": 16,
    "float32": 32,
    "float64": 64,
    "complex32": 32,
    "complex64": 64,
    "complex128": 128,
    "float8_e4m3fn": 8,
    "float8_e4m3fnuz": 8,
    "float8_e5m2": 8,
    "float8_e5m2fnuz": 8,
    "float8_e8m0fnu": 8,
    "float6_e2m3": 6,
    "float6_e3m2": 6,
    "float4_e2m1": 4,
    "qint8": 8,
    "quint8": 8,
    "qint32": 32,
}
"""Bits per element by dtype name; the one set of names for all formats."""

MAX_DIMENSIONS: Final = 64
MAX_ELEMENTS: Final = 1 << 62
MAX_TENSORS: Final = 250_000  # about 100 MB of Tensor values; the largest known models have some 150 000
MAX_NAME: Final = 512  # characters; longer names are cut, so that hostile ones cost little


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor: its bytes are `[start, end)` of the file.

    Views with gaps between their elements span from the first to the last of them.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Layout:
    """What a recognised file holds.

    Attributes:
        format: "safetensors", "torch-zip", "torch-legacy", "npz", "npy", "gguf", "onnx", "hdf5".
        framework: "pytorch", "tensorflow", "flax", "mlx", "numpy", or None when the file does not say.
        tensors: in file order, each stored tensor once however many names share it; None when only
            the format was recognised.
        extents: `(start, end)` of the stretches worth cutting at, ascending and disjoint.
    """

    format: str
    framework: str | None = None
    tensors: tuple[Tensor, ...] | None = None
    extents: tuple[tuple[int, int], ...] = ()

    @property
    def parameters(self) -> int | None:
        """Elements of all tensors together; None when the tensors are not known."""
        if self.tensors is None:
            return None
        return sum(tensor.elements for tensor in self.tensors)


def checked_shape(value: object) -> tuple[int, ...] | None:
    """`value` as a shape, or None if it is none: sizes of 0 or more, few, with a sane product."""
    if not isinstance(value, (list, tuple)) or len(value) > MAX_DIMENSIONS:
        return None
    for size in value:
        if type(size) is not int or not 0 <= size <= MAX_ELEMENTS:
            return None
    shape = tuple(value)
    return shape if math.prod(shape) <= MAX_ELEMENTS else None


def disjoint(extents: list[tuple[int, int]]) -> tuple[tuple[int, int], ...] | None:
    """The distinct extents in ascending order, without empty ones; None if two overlap."""
    ordered = sorted({(start, end) for start, end in extents if end > start})
    for (_, end), (start, _) in pairwise(ordered):
        if start < end:
            return None
    return tuple(ordered)
