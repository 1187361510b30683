"""Small reads of a header, served from larger reads of the file."""

from __future__ import annotations

from typing import Final

from shardfs.tensors.layout import ReadAt

PIECE: Final = 4096  # bytes per read; between the large tensors of a file lie some hundred bytes of header


class BrokenFileError(Exception):
    """The bytes break a rule of their format, or a limit of its reader; no reader lets it out."""


class Window:
    """The piece of a file of `size` bytes that was read last."""

    def __init__(self, read_at: ReadAt, size: int) -> None:
        self.size = size
        self._read_at = read_at
        self._start = 0
        self._held = memoryview(b"")

    def view(self, offset: int, least: int) -> memoryview:
        """The bytes from `offset` on, `least` of them or more.

        Raises:
            BrokenFileError: the file ends before.
        """
        behind = offset - self._start
        if behind < 0 or behind + least > len(self._held):
            if offset + least > self.size:
                raise BrokenFileError("header past the end of the file")
            self._held = memoryview(self._read_at(offset, min(max(least, PIECE), self.size - offset)))
            if len(self._held) < least:
                raise BrokenFileError("file shorter than its size")
            self._start, behind = offset, 0
        return self._held[behind:]
