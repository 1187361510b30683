"""Chunks of one size: for content that only ever changes in place."""

from __future__ import annotations


class FixedCutter:
    """Cuts every `size` bytes; the last chunk is what is left."""

    def __init__(self, size: int) -> None:
        """Cut chunks of `size` bytes; `ValueError` unless `size` is at least 1."""
        if size < 1:
            raise ValueError(f"chunk size must be at least 1 byte, not {size}")
        self._size = size

    @property
    def max_size(self) -> int:
        """The chunk size in bytes."""
        return self._size

    def cut(self, window: memoryview) -> int:
        """Return the chunk size, or the length of `window` where that is shorter."""
        return min(self._size, len(window))
