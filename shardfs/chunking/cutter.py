"""What every way of cutting has in common."""

from __future__ import annotations

from typing import Protocol


class Cutter(Protocol):
    """Decides the length of one chunk from the bytes it starts with.

    The decision may depend on nothing but the window, so that equal bytes are cut equally in every
    file, at every offset, whatever buffers they were read through.
    """

    @property
    def max_size(self) -> int:
        """The longest chunk, in bytes; also how far a window has to reach."""
        ...

    def cut(self, window: memoryview) -> int:
        """Return the length in bytes of the chunk at the front of `window`.

        `window` holds `max_size` bytes, or fewer when the stretch that is being cut ends with it.
        The answer is between 1 and the length of the window, which must not be empty.
        """
        ...
