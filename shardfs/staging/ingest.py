"""Files into a batch of the store: cut, hash, encode, with bounded memory for files of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from shardfs.chunking import Cursor
from shardfs.diff import tensors
from shardfs.formats.ids import ChunkId, Kind, ManifestId
from shardfs.formats.manifest import ChunkRef, Manifest, Media
from shardfs.formats.tree import FileEntry
from shardfs.staging.bases import Bases, FileBases
from shardfs.staging.guide import Guide
from shardfs.staging.pipeline import Pipeline
from shardfs.staging.ranges import Ranges
from shardfs.staging.source import Source, Stamp
from shardfs.store.store import Batch
from shardfs.tensors import Detector, Layout

BUFFER_SIZE: Final = 16 << 20  # bytes, two of them: one is read while the chunks of the other are encoded
SMALL: Final = 256 << 10
"""Bytes up to which a file without large tensors is one chunk, encoded on the spot: handing it to a worker costs as
much as 10 KB of zstd."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """The content of a file as a tree names it: a chunk, or a manifest, or neither when it is empty.

    `stamp` is that of the file when it was read; `media` is what a recognised model file holds.
    """

    size: int
    chunk: ChunkId | None
    manifest: ManifestId | None
    media: Media | None
    stamp: Stamp

    def entry(self, name: bytes, *, executable: bool = False) -> FileEntry:
        """A tree entry of this content."""
        return FileEntry(name, self.size, executable, self.chunk, self.manifest)


class Ingest:
    """Puts files into a batch, one after another, from one thread. Close it, or use it as a context manager.

    Holds two buffers of 16 MiB and two worker threads from the first file on that is not small. What it puts is
    durable once the batch is published.
    """

    def __init__(self, batch: Batch, progress: Callable[[int], None] | None = None, bases: Bases | None = None) -> None:
        """Put files into a batch.

        Args:
            batch: takes the chunks and manifests.
            progress: called with the number of bytes done since the last call.
            bases: finds what large files differ little from; None stores every chunk by itself.
        """
        self._batch = batch
        self._bases = bases
        self._progress = progress or (lambda _: None)
        self._pipeline: Pipeline | None = None
        self._buffers: tuple[memoryview, ...] = ()
        self._detector = Detector()

    def __enter__(self) -> Ingest:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bases is not None and error is None:
            self._bases.save()
        self.close()

    def close(self) -> None:
        """End the worker threads and free the buffers."""
        if self._pipeline is not None:
            self._pipeline.abandon()
            self._pipeline.close()
        self._pipeline, self._buffers = None, ()

    def file(
        self, fd: int, name: bytes, *, size: int | None = None, below: tuple[FileEntry, Ranges] | None = None
    ) -> Ingested:
        """Put the file behind a descriptor, from its front whatever the descriptor's offset is.

        Args:
            fd: open for reading; its offset moves when the file is sparse.
            name: path of the file in the tree it belongs to, for messages, for formats that are told by their name,
                and to find the version before.
            size: take this many bytes from the front, which the caller knows will not change. None: take the
                whole file and check that nothing writes to it meanwhile.
            below: a stored file whose bytes count, instead of those behind the descriptor, in these ranges. Its
                chunks are taken over unread where they lie in the ranges and a cut would give them again. Only
                with bases.

        Raises:
            FileChangedError: something wrote to the file; nothing names what was read of it.
            UnsupportedFileError: not a regular file.
            StoreError: the file cannot be read, or the batch not written.
        """
        layers = None
        if below is not None and self._bases is not None:
            layers = self._bases.reader(below[0]), below[1]
        source = Source(fd, name, size, layers)
        layout = self._detector.detect(source.read_at, source.size, source.name)
        stretches = tensors.large(layout)
        if source.size <= SMALL and not stretches:
            return self._small(source, layout)
        pipeline = self._open_pipeline()
        found = self._bases.find(name, layout, source.read_at, layers) if self._bases is not None else None
        extents = [(stretch.start, stretch.end) for stretch in stretches]
        dtypes = {stretch.start: stretch.dtype for stretch in stretches}
        guide = Guide(Cursor(source.size, extents), dtypes, found, layers[1] if layers else None)
        try:
            self._stream(source, guide, pipeline)
            chunks = pipeline.finish()
            source.check_unchanged()
        except BaseException:
            pipeline.abandon()
            raise
        return self._content(source, chunks, layout, found)

    def _open_pipeline(self) -> Pipeline:
        if self._pipeline is None:
            self._pipeline = Pipeline(self._batch, self._bases, self._progress)
            self._buffers = tuple(memoryview(bytearray(BUFFER_SIZE)) for _ in range(2))
        return self._pipeline

    def _stream(self, source: Source, guide: Guide, pipeline: Pipeline) -> None:
        number, start, end = 0, 0, 0  # the buffer in use, and the range of the file that it holds
        cursor = guide.cursor
        while not cursor.finished:
            guide.enter()
            known = guide.known()
            if known is not None:
                pipeline.submit_known(known)
                cursor.skip(known.size)
                continue
            offset, reach = cursor.offset, cursor.reach
            if source.is_hole(offset, offset + reach):
                pipeline.submit_zeros(cursor.cut_zeros())
                continue
            if end < offset + reach:
                previous, number = number, 1 - number
                pipeline.reclaim(number)
                kept = max(0, end - offset)
                buffer = self._buffers[number]
                buffer[:kept] = self._buffers[previous][end - kept - start : end - start]
                start = offset
                end = source.worth_reading(offset, offset + reach, min(offset + BUFFER_SIZE, source.size))
                source.fill(buffer[kept : end - start], start + kept)
            window = self._buffers[number][offset - start : end - start]
            base = guide.base()
            if base is None or not guide.is_doubtful:
                pipeline.submit(window[: cursor.cut(window)], number, guide.dtype, base)
            elif pipeline.submit_if_similar(window[:reach], number, guide.dtype, base):
                cursor.cut(window)
            else:
                guide.give_up()

    def _small(self, source: Source, layout: Layout | None) -> Ingested:
        """A file of one chunk."""
        content = source.read_all()
        source.check_unchanged()
        chunks = [ChunkRef(ChunkId(self._batch.put(Kind.CHUNK, content)), len(content))] if content else []
        self._progress(len(content))
        return self._content(source, tuple(chunks), layout)

    def _content(
        self, source: Source, chunks: tuple[ChunkRef, ...], layout: Layout | None, found: FileBases | None = None
    ) -> Ingested:
        if layout is None and len(chunks) <= 1:
            chunk = chunks[0].id if chunks else None
            return Ingested(source.size, chunk, None, None, source.stamp)
        media = media_of(layout) if layout else None
        manifest = Manifest(source.size, chunks, media)
        id_ = self._batch.put(Kind.MANIFEST, manifest.to_bytes(), id_=manifest.id)
        if self._bases is not None and layout is not None and found is not None:
            self._bases.remember(manifest, layout, found.heads)
        return Ingested(source.size, None, ManifestId(id_), media, source.stamp)


def media_of(layout: Layout) -> Media:
    """What a manifest and a commit say about a recognised file."""
    count = None if layout.tensors is None else len(layout.tensors)
    return Media(layout.format, layout.framework, count, layout.parameters)
