"""Generations over committed content: where nothing was written, what lies below shows.

So a write into a file of 100 GB costs what it writes, and a commit reads no more than that and the chunks at its edges.
"""

from __future__ import annotations

import os
from struct import Struct
from struct import error as StructError
from typing import Final, NamedTuple

from shardfs.errors import MalformedError
from shardfs.formats.tree import FileEntry
from shardfs.staging.nodes import Content, file_entry
from shardfs.staging.ranges import Ranges

_SIZES: Final = Struct("<QB")  # of the content in bytes, of its key
_EDGE: Final = Struct("<Q")


class Below(NamedTuple):
    """Committed content below a generation.

    `content` names it as the column `content` does; of its `size` bytes those in `kept` show.
    """

    size: int
    content: bytes
    kept: Ranges

    def entry(self, name: bytes = b"-") -> FileEntry:
        """The content as an entry of a tree."""
        return file_entry(name, self.size, executable=False, content=self.content)

    def to_bytes(self) -> bytes:
        """What the column `below` holds: sizes, the key, the edges of the ranges as 64-bit numbers."""
        packed = b"".join(map(_EDGE.pack, self.kept.edges))
        return _SIZES.pack(self.size, len(self.content)) + self.content + packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Below:
        """The reverse of `to_bytes`.

        Raises:
            MalformedError: no such bytes.
        """
        try:
            size, length = _SIZES.unpack_from(data)
            content, packed = data[_SIZES.size : _SIZES.size + length], data[_SIZES.size + length :]
            edges = [edge for (edge,) in _EDGE.iter_unpack(packed)]
            return cls(size, content, Ranges(edges))
        except (StructError, ValueError) as error:
            msg = f"the content below a staged file is damaged: {error}"
            raise MalformedError(msg) from error


class Layered:
    """A generation and the content below as one file."""

    def __init__(self, fd: int, content: Content, kept: Ranges) -> None:
        """Read from the descriptor `fd` what is not in `kept`, and from `content` what is."""
        self.fd = fd
        self.content = content
        self.kept = kept

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer at the end of the generation, or where it is cut off meanwhile."""
        parts = []
        for start, end, inside in self.kept.pieces(offset, offset + size):
            length = end - start
            part = self.content.read_at(start, length) if inside else os.pread(self.fd, length, start)
            parts.append(part)
            if len(part) < length:
                break
        return parts[0] if len(parts) == 1 else b"".join(parts)
