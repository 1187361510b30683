"""Chunks on their way into a batch: hashed and encoded by worker threads, written in order by the caller."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import MappingProxyType
from typing import Final, NamedTuple

from shardfs.codecs import registry
from shardfs.codecs.registry import Encoded
from shardfs.formats.ids import ChunkId, Kind, chunk_id
from shardfs.formats.manifest import ChunkRef
from shardfs.staging.bases import Bases
from shardfs.store.store import Batch

WORKERS: Final = 2  # hashing and zstd release the GIL; a third thread, the caller, reads, cuts and writes


class _Result(NamedTuple):
    """The id of a chunk, its payload unless it is stored, and payloads and raw sizes of bases to store with it."""

    id: ChunkId
    encoded: Encoded | None = None
    bases: Mapping[bytes, tuple[Encoded, int]] = MappingProxyType({})


class _Job(NamedTuple):
    buffer: int  # which buffer its bytes lie in
    size: int
    result: Future[_Result]


class Pipeline:
    """Takes the chunks of one file after another. All methods are for one thread, the caller's.

    A chunk that the store has is hashed and no more. Its bytes must stay as they are until `reclaim` of its
    buffer, or `finish`, returns: a chunk that does not compress is written from where it lies.
    """

    def __init__(self, batch: Batch, bases: Bases | None, progress: Callable[[int], None]) -> None:
        self._batch = batch
        self._bases = bases
        self._progress = progress
        self._jobs: deque[_Job] = deque()
        self._chunks: list[ChunkRef] = []
        self._zeros: dict[int, ChunkId] = {}
        # Ids that are in the store or will be when the jobs are written, so that equal chunks in
        # flight are encoded once.
        self._claimed: set[ChunkId] = set()
        self._guard = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="ingest")

    def close(self) -> None:
        """End the worker threads."""
        self._pool.shutdown(cancel_futures=True)

    def submit(self, data: memoryview, buffer: int, dtype: str | None = None, base: ChunkRef | None = None) -> None:
        """Add the next chunk of the file.

        Args:
            data: its bytes.
            buffer: the number of the buffer that they lie in.
            dtype: of the values that they are, if they are any.
            base: a stored chunk that they may differ little from.
        """
        self._jobs.append(_Job(buffer, len(data), self._pool.submit(self._encode, data, dtype, base)))
        while self._jobs and self._jobs[0].result.done():
            self._write_first()

    def submit_if_similar(self, data: memoryview, buffer: int, dtype: str | None, base: ChunkRef) -> bool:
        """Add the next chunk as `submit` does if it is stored already or as a difference; returns whether it is.

        Waits for the answer; for tensors whose rows may have moved.
        """
        result = self._encode(data, dtype, base)
        if result.encoded is not None and not result.encoded.bases:
            with self._guard:
                self._claimed.discard(result.id)
            return False
        self._jobs.append(_Job(buffer, len(data), _done(result)))
        return True

    def submit_zeros(self, size: int) -> None:
        """Add a next chunk of `size` zeros: hashed once however many there are."""
        known = self._zeros.get(size)
        if known is None:
            known = self._zeros[size] = ChunkId(self._batch.put(Kind.CHUNK, bytes(size)))
        self._jobs.append(_Job(-1, size, _done(_Result(known))))
        if len(self._jobs) == 1:
            self._write_first()

    def submit_known(self, chunk: ChunkRef) -> None:
        """Add a next chunk that is stored already."""
        self._jobs.append(_Job(-1, chunk.size, _done(_Result(chunk.id))))
        if len(self._jobs) == 1:
            self._write_first()

    def reclaim(self, buffer: int) -> None:
        """Wait until no chunk needs the buffer of that number any more."""
        while any(job.buffer == buffer for job in self._jobs):
            self._write_first()

    def finish(self) -> tuple[ChunkRef, ...]:
        """Wait for all chunks of the file; returns them in order, and is ready for the next file."""
        while self._jobs:
            self._write_first()
        chunks, self._chunks = tuple(self._chunks), []
        return chunks

    def abandon(self) -> None:
        """Forget the file. Chunks that were written stay in the batch, where nothing names them."""
        while self._jobs:
            result = self._jobs.popleft().result
            if not result.cancel() and result.exception() is None and result.result().encoded is not None:
                self._claimed.discard(result.result().id)
        self._chunks = []

    def _write_first(self) -> None:
        job = self._jobs[0]
        result = job.result.result()
        for id_, (encoded, raw_size) in result.bases.items():
            self._batch.put_encoded(Kind.CHUNK, id_, encoded, raw_size)
        if result.encoded is not None:
            self._batch.put_encoded(Kind.CHUNK, result.id, result.encoded, job.size)
        self._jobs.popleft()
        self._chunks.append(ChunkRef(result.id, job.size))
        self._progress(job.size)

    def _encode(self, data: memoryview, dtype: str | None, base: ChunkRef | None) -> _Result:
        """On a worker thread: id and payload, no payload for a chunk that is there or on its way."""
        id_ = chunk_id(data)
        with self._guard:
            if id_ in self._claimed:
                return _Result(id_)
            self._claimed.add(id_)
        try:
            if self._batch.has([id_]):
                return _Result(id_)
            if self._bases is None or base is None:
                return _Result(id_, registry.encode(data, dtype))
            encoded = registry.encode(data, dtype, self._bases.data(base, id_))
            absent = self._bases.absent(encoded.bases, dtype)
            if absent is None:
                return _Result(id_, registry.encode(data, dtype))
            self._bases.stored(id_, data, encoded.bases)
            return _Result(id_, encoded, absent)
        except BaseException:
            with self._guard:
                self._claimed.discard(id_)
            raise


def _done(result: _Result) -> Future[_Result]:
    future: Future[_Result] = Future()
    future.set_result(result)
    return future
