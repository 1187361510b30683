"""What a model file holds, as far as its headers tell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

ReadAt = Callable[[int, int], bytes]
"""`read_at(offset, size)`: that many bytes from there, fewer only where the file ends."""

MAX_DIMENSIONS: Final = 64
MAX_ELEMENTS: Final = 1 << 62
MAX_TENSORS: Final = 250_000  # about 100 MB of Tensor values; the largest known models have some 150 000
MAX_NAME: Final = 512  # characters; longer names are cut, so that hostile ones cost little


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes `[start, end)` of a file that are worth cutting at, and what tells them again in another version of it.

    Attributes:
        name: of the tensor; of the first one where several share the bytes; else of the member of an archive.
        dtype: a name in `dtypes.BLOCKS` when the bytes are elements of it back to back, little-endian; else None.
        shape: of the tensor; `(elements,)` where several share the bytes; `(bytes,)` where none is known.
        start: in bytes.
        end: in bytes.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Tensor(Stretch):
    """One tensor: its bytes are `[start, end)` of the file, its dtype is known.

    Views with gaps between their elements span from the first to the last of them.
    """

    dtype: str

    @property
    def elements(self) -> int:
        """The number of elements; 1 for a scalar."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class ExternalTensor:
    """A tensor whose bytes are `[offset, offset + length)` of another file.

    `location` is that file's path relative to the folder of this one, as this one says it: it may lead
    anywhere or nowhere.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    location: str
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a recognised file holds.

    Attributes:
        format: "safetensors", "torch-zip", "torchscript", "torch-legacy", "npz", "npy", "gguf", "onnx",
            "onnx-data", "hdf5".
        framework: "pytorch", "tensorflow", "flax", "mlx", "numpy", or None when the file does not say.
        tensors: in file order, each stored tensor once however many names share it; None when they are not known.
        stretches: one per tensor or storage, ascending, disjoint and none of them empty.
        external: what the file says about tensors that other files hold; `external_layout` finds them there.
    """

    format: str
    framework: str | None = None
    tensors: tuple[Tensor, ...] | None = None
    stretches: tuple[Stretch, ...] = ()
    external: tuple[ExternalTensor, ...] = ()

    @property
    def extents(self) -> tuple[tuple[int, int], ...]:
        """`(start, end)` of the stretches."""
        return tuple((stretch.start, stretch.end) for stretch in self.stretches)

    @property
    def parameters(self) -> int | None:
        """Elements of all tensors together; None when the tensors are not known."""
        if self.tensors is None:
            return None
        return sum(tensor.elements for tensor in self.tensors)


def in_order(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Tensors as they follow each other in the file."""
    return tuple(sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)))


def checked_shape(value: object) -> tuple[int, ...] | None:
    """`value` as a shape, or None if it is none: sizes of 0 or more, few, with a sane product."""
    if not isinstance(value, (list, tuple)) or len(value) > MAX_DIMENSIONS:
        return None
    for size in value:
        if type(size) is not int or not 0 <= size <= MAX_ELEMENTS:
            return None
    shape = tuple(value)
    return shape if math.prod(shape) <= MAX_ELEMENTS else None


def disjoint(stretches: Iterable[Stretch]) -> tuple[Stretch, ...] | None:
    """The stretches in ascending order, without empty ones; None if two overlap."""
    ordered = sorted((s for s in stretches if s.end > s.start), key=lambda stretch: stretch.start)
    if any(after.start < before.end for before, after in pairwise(ordered)):
        return None
    return tuple(ordered)
