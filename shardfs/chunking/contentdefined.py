"""Chunks whose ends are chosen by the content (FastCDC), so that they move with it."""

from __future__ import annotations

import warnings
from functools import cache

# The package's own front door falls back to pure Python with a warning that names neither the cost
# nor the cure, and hides which of the two was loaded.
try:
    from pyfastcdc.cy import FastCDC

    COMPILED = True
except ImportError:
    from pyfastcdc.py import FastCDC

    COMPILED = False

KIB = 1024
MIN_SIZE = 256 * KIB
AVG_SIZE = 1024 * KIB
MAX_SIZE = 4096 * KIB
"""Shortest, aimed-at and longest chunk in bytes; see docs/design/format/chunking.md."""

_NORMALIZATION = 1
_SEED = 0


class ContentDefinedCutter:
    """Cuts where a rolling hash of the last 64 bytes says so.

    An insertion or deletion changes the chunks it touches and the next one or two; after that the
    old cuts come back. Constant bytes (zeros above all) give chunks of the longest size.

    The compiled and the pure Python build of the library cut alike, so both may work on one
    repository. The pure one is about 200 times slower; it is used only when the compiled one
    cannot be loaded (`COMPILED` is false), and then a `RuntimeWarning` says so.
    """

    def __init__(
        self,
        min_size: int = MIN_SIZE,
        avg_size: int = AVG_SIZE,
        max_size: int = MAX_SIZE,
        *,
        alignment: int = 1,
    ) -> None:
        """Set the limits, all in bytes.

        Args:
            min_size: no chunk is shorter, except the last; 64 bytes to 1 MiB.
            avg_size: what the sizes are normalised around; 256 bytes to 4 MiB.
            max_size: no chunk is longer; 1 KiB to 16 MiB.
            alignment: chunk lengths, except the last, are multiples of this. Use it only where
                content moves by such multiples, as tensor rows do: a shift by anything else
                would hide equal bytes from each other.

        Raises:
            ValueError: the sizes are not in ascending order, out of range, or `min_size` or
                `max_size` is not a multiple of `alignment`.
        """
        if not min_size <= avg_size <= max_size:
            raise ValueError(f"chunk sizes must ascend: {min_size}, {avg_size}, {max_size}")
        if alignment < 1 or min_size % alignment or max_size % alignment:
            raise ValueError(f"chunk sizes must be multiples of the alignment {alignment}")
        if not COMPILED:
            warnings.warn(
                "content-defined chunking runs without its compiled extension: cuts are the same, "
                "about 200 times slower; reinstall pyfastcdc from a wheel or with a C compiler",
                RuntimeWarning,
                stacklevel=2,
            )
        self._max_size = max_size
        self._alignment = alignment
        self._fastcdc = FastCDC(
            avg_size,
            min_size=min_size,
            max_size=max_size,
            normalized_chunking=_NORMALIZATION,
            seed=_SEED,
        )

    @property
    def max_size(self) -> int:
        """The longest chunk in bytes."""
        return self._max_size

    def cut(self, window: memoryview) -> int:
        """Return the length in bytes of the chunk at the front of `window` (not empty)."""
        length: int = next(iter(self._fastcdc.cut_buf(window[: self._max_size]))).length
        if length == len(window):
            return length
        return length - length % self._alignment


@cache
def default_cutter(alignment: int = 1) -> ContentDefinedCutter:
    """The one cutter of the default sizes and this alignment in bytes; it holds no state."""
    return ContentDefinedCutter(alignment=alignment)
