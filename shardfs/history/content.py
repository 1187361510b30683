"""File contents: any range of a file, chunk by chunk, and a file object over it."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from shardfs.errors import ObjectCorruptedError, ShardfsError
from shardfs.formats.ids import ChunkId
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.tree import FileEntry
from shardfs.history.objects import ChunkSource, Objects

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


def manifest_of(entry: FileEntry, objects: Objects) -> Manifest:
    """The chunks of a file, also for files that need no manifest object.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: the manifest cannot be read or has another size.
    """
    if entry.manifest is None:
        chunks = () if entry.chunk is None else (ChunkRef(entry.chunk, entry.size),)
        return Manifest(entry.size, chunks)
    manifest = objects.manifest(entry.manifest)
    if manifest.size != entry.size:
        msg = f"file {entry.name!r}: tree says {entry.size} bytes, manifest says {manifest.size}"
        raise ObjectCorruptedError(msg)
    return manifest


class Watcher(Protocol):
    """Told what is read of a file, so that what will be read next can be loaded in the background."""

    def read(self, offset: int, size: int, /) -> None:
        """Bytes [offset, offset + size) are about to be read."""
        ...

    def read_all(self) -> None:
        """The whole file is about to be read."""
        ...

    def close(self) -> None:
        """Nothing more will be read."""
        ...


Watching = Callable[[FileEntry, Manifest, Callable[[int, int], bytes]], Watcher]
"""Makes the watcher of a file, given its chunks and a way to read it that is not watched."""


Rescue = Callable[[FileEntry, ChunkRef, int], bytes | None]
"""Gives a chunk at an offset of a file from a copy of the whole file, verified; None when it cannot."""


class FileReader:
    """Random access to one file of a commit. Safe to share between threads."""

    def __init__(
        self,
        entry: FileEntry,
        objects: Objects,
        chunks: ChunkSource,
        watch: Watching | None = None,
        holds: Callable[[ChunkId], bool] = lambda _id: False,
        rescue: Rescue = lambda _entry, _chunk, _offset: None,
        near: Rescue = lambda _entry, _chunk, _offset: None,
    ) -> None:
        """Open a file.

        Args:
            entry: the file.
            objects: reads its manifest.
            chunks: reads its chunks.
            watch: makes the watcher of the reads; None for none.
            holds: whether `chunks` has a chunk in memory.
            rescue: gives chunks that `chunks` cannot.
            near: asked for each chunk that is not in memory before `chunks` is.
        """
        self.entry = entry
        self.manifest = manifest_of(entry, objects)
        self._chunks = chunks
        self._holds = holds
        self._rescue = rescue
        self._near = near
        self._watcher = None if watch is None else watch(entry, self.manifest, self._unwatched)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.entry.size

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes [offset, offset + size), fewer at the end of the file.

        Raises:
            ChunkNotFoundError, ChunkCorruptedError, RemoteError: a chunk of the range has no good copy.
        """
        parts = self.pieces_at(offset, size)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def pieces_at(self, offset: int, size: int) -> list[bytes | memoryview]:
        """As `read_at`, in pieces as they lie in memory: who can send several buffers at once need not join them."""
        if self._watcher is not None:
            self._watcher.read(offset, size)
        return self._pieces(offset, size)

    def is_ready(self, offset: int, size: int) -> bool:
        """Whether `read_at` would find all of the range in memory."""
        return all(self._holds(chunk.id) for chunk, _, _ in self.manifest.locate(offset, size))

    def blocks(self) -> Iterator[bytes]:
        """The whole file, one chunk at a time; errors as `read_at`."""
        if self._watcher is not None:
            self._watcher.read_all()
        offset = 0
        for chunk in self.manifest.chunks:
            if self._watcher is not None:
                self._watcher.read(offset, chunk.size)
            yield self._chunk(chunk, offset)
            offset += chunk.size

    def close(self) -> None:
        """Nothing more will be read: the order of the reads may be kept. Readers that never say so cost nothing."""
        if self._watcher is not None:
            self._watcher.close()

    def _unwatched(self, offset: int, size: int) -> bytes:
        return b"".join(self._pieces(offset, size))

    def _pieces(self, offset: int, size: int) -> list[bytes | memoryview]:
        parts: list[bytes | memoryview] = []
        for chunk, start, end in self.manifest.locate(offset, size):
            data = self._chunk(chunk, offset - start)
            offset += end - start
            parts.append(data if end - start == len(data) else memoryview(data)[start:end])
        return parts

    def _chunk(self, chunk: ChunkRef, offset: int) -> bytes:
        # Before any remote: one that is silent would be waited for, though the bytes are here.
        if not self._holds(chunk.id) and (data := self._near(self.entry, chunk, offset)) is not None:
            return data
        try:
            return self._chunks.chunk(chunk.id, chunk.size)
        except ShardfsError:
            data = self._rescue(self.entry, chunk, offset)
            if data is None:
                raise
            return data


class ContentFile(io.RawIOBase):
    """A read-only seekable binary file over a `FileReader`; torch.load and safetensors take it.

    Not safe to share between threads: it has a position.
    """

    def __init__(self, reader: FileReader, name: str) -> None:
        super().__init__()
        self._reader = reader
        self._position = 0
        self.name = name

    def close(self) -> None:
        """Nothing more will be read."""
        if not self.closed:
            self._reader.close()
        super().close()

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """Bytes from the start of the file."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position; past the end is allowed. Returns the new position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._reader.size}
        if whence not in base:
            msg = f"whence must be 0, 1 or 2, not {whence}"
            raise ValueError(msg)
        position = base[whence] + offset
        if position < 0:
            msg = f"negative position {position}"
            raise ValueError(msg)
        self._position = position
        return position

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Fill `buffer` with the next bytes; returns how many, 0 at the end. Errors as `FileReader.read_at`."""
        view = memoryview(buffer).cast("B")
        data = self._reader.read_at(self._position, len(view))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        """Everything from the position to the end; errors as `FileReader.read_at`."""
        data = self._reader.read_at(self._position, max(0, self._reader.size - self._position))
        self._position += len(data)
        return data
