"""The hot loops of the float codecs: compiled where the library is there, else in numpy, with the same bytes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Protocol

from shardfs.codecs.base import Buffer
from shardfs.codecs.elements import Element


class Kernels(Protocol):
    """Loops over the first `count` values of buffers that hold at least that many; `count` is 1 or more.

    A plane is one byte of every value: plane 0 holds the lowest. Planes that come back may lie in memory that the
    next call of the same thread overwrites.

    Attributes:
        name: for people.
    """

    name: str

    def any_sign(self, element: Element, data: Buffer, count: int) -> bool:
        """Whether a value has its top bit set."""
        ...

    def split(self, element: Element, data: Buffer, count: int, *, rotate: bool) -> list[memoryview]:
        """The planes of the values, with the sign in the lowest bit if `rotate`."""
        ...

    def join(self, element: Element, planes: Sequence[Buffer], count: int, tail: Buffer, *, rotate: bool) -> bytes:
        """The values of these planes, and `tail` after them."""
        ...

    def fit(self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int) -> int:
        """The factor of the last step that predicts `data` well, in units of 1 / `RHO_UNIT`; 0 if nothing moved."""
        ...

    def subtract(
        self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int, rho: int
    ) -> list[memoryview]:
        """The planes of the differences to the bases; `rho` counts only when there are two."""
        ...

    def add(
        self, element: Element, planes: Sequence[Buffer], bases: Sequence[Buffer], count: int, tail: Buffer, rho: int
    ) -> bytes:
        """The inverse of `subtract`, and `tail` after the values."""
        ...

    def squares(self, plane: Buffer, step: int) -> int:
        """The sum of the squares of how often each byte occurs among every `step`-th of a plane."""
        ...

    def thin(self, plane: Buffer) -> tuple[memoryview, memoryview]:
        """A bitmap of the bytes that are not zero, and these bytes."""
        ...

    def thicken(self, bitmap: Buffer, others: Buffer, size: int) -> bytes | None:
        """The inverse of `thin` for a plane of `size` bytes; None if bitmap and bytes do not fit each other."""
        ...


def _choose() -> Kernels:
    if os.environ.get("SHARDFS_KERNELS") != "numpy":
        from shardfs.codecs import kernels_c

        if (compiled := kernels_c.load()) is not None:
            return compiled
    from shardfs.codecs.kernels_numpy import NumpyKernels

    return NumpyKernels()


active: Final = _choose()
"""What this process uses. `SHARDFS_KERNELS=numpy` in the environment forces the slower ones."""
