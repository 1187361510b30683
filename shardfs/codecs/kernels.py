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

    def fit(self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int) -> float:
        """The factor of the last step that predicts `data` best; 0.0 where nothing can be said. May be any float."""
        ...

    def subtract(
        self, element: Element, data: Buffer, bases: Sequence[Buffer], count: int, rho: float
    ) -> list[memoryview]:
        """The planes of the differences to the bases; `rho` counts only when there are two."""
        ...

    def add(
        self,
        element: Element,
        planes: Sequence[Buffer],
        bases: Sequence[Buffer],
        count: int,
        tail: Buffer,
        rho: float,
    ) -> bytes:
        """The inverse of `subtract`, and `tail` after the values."""
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
