"""Open committed files of which there is a plain copy on this disk, checked already."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Final

from shardfs.mount.nodes import Handle, Node

_LARGEST: Final = 1 << 20  # bytes of one request of the kernel engine


class _Room(threading.local):
    """Where a thread reads to, instead of memory that is new, and filled with zeros, for each request."""

    def __init__(self) -> None:
        self.bytes = bytearray(_LARGEST)
        self.holds: tuple[PlainHandle, int, int] | None = None  # whose bytes, from where, how many were asked for


_room: Final = _Room()


class PlainHandle(Handle):
    """Reads a plain file. Where it should be shorter than its content, or unreadable, `content` answers instead."""

    keep_cache = True

    def __init__(self, node: Node, fd: int, size: int, content: Handle) -> None:
        """Take over a descriptor.

        Args:
            node: what was opened.
            fd: of a plain file with the content of the node.
            size: bytes of the content.
            content: another open file of the same node.
        """
        super().__init__(node)
        self._fd = fd
        self._size = size
        self._content = content

    def backing(self) -> int:
        """The plain file."""
        return self._fd

    def read(self, offset: int, size: int) -> bytes:
        """As a plain file is read."""
        return b"".join(self.pieces(offset, size))

    def pieces(self, offset: int, size: int) -> Sequence[bytes | memoryview]:
        """As `read`; what is given stays what it is until the next call of the same thread."""
        size = self._within(offset, size)
        room = _room
        if room.holds != (self, offset, size) and not self._fill(offset, size, 0):
            return self._content.pieces(offset, size)
        room.holds = None
        return (memoryview(room.bytes)[:size],)

    def is_ready(self, offset: int, size: int) -> bool:
        """Whether the kernel has the bytes in memory. They are read on the way."""
        size = self._within(offset, size)
        if self._fill(offset, size, os.RWF_NOWAIT):
            _room.holds = (self, offset, size)
            return True
        return False

    def release(self) -> None:
        """Close both."""
        os.close(self._fd)
        self._content.release()

    def _within(self, offset: int, size: int) -> int:
        return max(0, min(size, self._size - offset))

    def _fill(self, offset: int, size: int, flags: int) -> bool:
        """Read into this thread's room; False when that does not give everything."""
        room = _room
        room.holds = None
        if size > len(room.bytes):
            room.bytes = bytearray(size)
        done = 0
        while done < size:
            try:
                count = os.preadv(self._fd, [memoryview(room.bytes)[done:size]], offset + done, flags)
            except OSError:
                return False
            if not count:
                return False
            done += count
        return True
