"""Contents of files or tensors: which chunks they are, what of them only remotes have, and copies in packs here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.registry import Encoded
from shardfs.errors import IntegrityError, NotFoundError, PathNotFoundError, RemoteError, ShardfsError
from shardfs.formats.ids import ChunkId, Kind, PackId
from shardfs.formats.manifest import ChunkRef
from shardfs.formats.tree import FileEntry
from shardfs.history import paths
from shardfs.history.content import FileReader, manifest_of
from shardfs.history.objects import Objects
from shardfs.progress import Progress
from shardfs.store.cache import Cache
from shardfs.store.index import LOCAL, Index, Location
from shardfs.store.store import Store
from shardfs.tensors import Detector
from shardfs.transfer.losses import Losses
from shardfs.transfer.parallel import in_order
from shardfs.transfer.reader import Reader
from shardfs.transfer.scratch import check_room

THREADS: Final = 8  # chunks that are read at the same time
AHEAD_BYTES: Final = 32 << 20  # of plaintext that waits for its turn
BATCH: Final = 32  # chunks, usually of 1 MiB, that a remote is asked for at a time
_FLUSH_SIZE: Final = 32 << 20  # bytes of payloads in memory before they are stored; what a kill loses
_ROUNDS: Final = 3  # a copy that is read instead of a damaged one may have bases of its own


class Picked(NamedTuple):
    """Chunks that somebody named.

    Attributes:
        files: how many distinct contents they are of.
        chunks: by id.
        tensors: how many tensors; None when whole files were named.
    """

    files: int
    chunks: Mapping[bytes, ChunkRef]
    tensors: int | None = None

    @property
    def bytes(self) -> int:
        """Size of the chunks."""
        return sum(chunk.size for chunk in self.chunks.values())


class Lack(NamedTuple):
    """What must come to have some chunks here.

    Attributes:
        chunks: how many, with all that they are differences to.
        bytes: their stored size, which is what comes over the wire but for gaps between them.
    """

    chunks: int
    bytes: int


class Kept(NamedTuple):
    """What became of chunks that were to be copied here.

    Attributes:
        chunks: that were copied.
        bytes: their stored size.
        errors: of those that could not be had, each once.
    """

    chunks: int
    bytes: int
    errors: list[ShardfsError]


def pick(
    files: Iterable[tuple[paths.Path, FileEntry]], objects: Objects, reader: Reader, pattern: str | None = None
) -> Picked:
    """The chunks of files, or of their tensors whose names match a pattern as in a shell.

    Raises:
        PathNotFoundError: no tensor has such a name. Errors of reading manifests and, for tensors, headers.
    """
    if pattern is None:
        manifests = [manifest_of(entry, objects) for _, entry in files]
        return Picked(len(manifests), {chunk.id: chunk for manifest in manifests for chunk in manifest.chunks})
    detector, wanted, tensors, models = Detector(), dict[bytes, ChunkRef](), 0, 0
    for path, entry in files:
        file = FileReader(entry, objects, reader)
        layout = detector.detect(file.read_at, file.size, b"/".join(path))
        stretches = () if layout is None else layout.tensors or layout.stretches
        matching = [stretch for stretch in stretches if fnmatchcase(stretch.name, pattern)]
        tensors += len(matching)
        models += bool(matching)
        for stretch in matching:
            for span in file.manifest.locate(stretch.start, stretch.end - stretch.start):
                wanted[span.chunk.id] = span.chunk
    if not tensors:
        msg = f"no tensor is named {pattern!r}; `shardfs stats REV --by tensor` lists them"
        raise PathNotFoundError(msg)
    return Picked(models, wanted, tensors)


def lack(ids: Iterable[bytes], index: Index, cache: Cache | None) -> Lack:
    """What of some chunks must come from remotes; without a cache, to have all of it in packs here."""
    found = _far(ids, index, cache)
    return Lack(len(found), sum(copy.entry.stored_size for copy in found))


def keep(store: Store, reader: Reader, ids: Iterable[bytes], progress: Progress) -> Kept:
    """Copy chunks that only remotes have, and all that they are differences to, into packs of this store.

    Each is verified first, and what is damaged at one remote comes from another. One that cannot be had keeps back no
    other. May be interrupted and run again.

    Raises:
        OutOfSpaceError: they do not fit on the disk; nothing was asked for. RemoteError: a remote can be asked for
            nothing. LockedError, ReadOnlyError, StoreError: by the disk.
    """
    work = _Copy(store, reader)
    wanted = list(ids)
    for _ in range(_ROUNDS):
        far = [copy for copy in _far(wanted, store.index, None) if copy.entry.id not in work.failed]
        if not far:
            break
        total = sum(copy.entry.stored_size for copy in far)
        check_room(store.layout, total)

        def tell(done: int, before: int = work.size, total: int = total) -> None:
            progress(before + done, before + total, "copying")

        work.run(far, tell)
    return Kept(work.chunks, work.size, list({str(error): error for error in work.failed.values()}.values()))


def read(reader: Reader, chunks: list[ChunkRef]) -> Iterator[bytes]:
    """The plaintext of chunks in order; many are on their way from remotes at the same time."""

    def load(chunk: ChunkRef) -> bytes:
        return reader.chunk(chunk.id, chunk.size)

    coming = _announced(reader, chunks)
    return in_order(load, coming, threads=THREADS, ahead=AHEAD_BYTES, size=lambda chunk: chunk.size)


def _announced(reader: Reader, chunks: list[ChunkRef]) -> Iterator[ChunkRef]:
    """Chunks in order; those of two batches are on their way from a remote when the first of them is taken."""
    for start in range(0, len(chunks), BATCH):
        reader.bring(chunks[start : start + 2 * BATCH])
        yield from chunks[start : start + BATCH]


def _far(ids: Iterable[bytes], index: Index, cache: Cache | None) -> list[Location]:
    """Copies at remotes of chunks and all that they depend on, which are neither in packs here nor in the cache."""
    found: list[Location] = []
    level = set(ids)
    seen = set(level)
    for _ in range(MAX_BASE_DEPTH + 1):
        needed: set[bytes] = set()
        for id_, copy in index.find_many(level).items():
            bases = copy.entry.bases
            if copy.place != LOCAL:
                cached = None if cache is None else cache.bases(id_)
                if cached is None:
                    found.append(copy)
                else:
                    bases = cached
            needed.update(bases)
        level = needed - seen
        seen |= level
    return sorted(found, key=lambda copy: (copy.place, copy.pack, copy.entry.offset))


class _Copy:
    def __init__(self, store: Store, reader: Reader) -> None:
        self._store = store
        self._reader = reader
        self._losses = Losses()
        self.failed: dict[bytes, ShardfsError] = {}
        self.chunks = self.size = 0

    def run(self, far: list[Location], tell: Callable[[int], None]) -> None:
        """Copy what can be had; tells how many bytes of it came."""
        refs = [ChunkRef(ChunkId(copy.entry.id), copy.entry.raw_size) for copy in far]
        packs = {copy.entry.id: copy.pack for copy in far}
        waiting: list[tuple[ChunkRef, Encoded]] = []
        size = done = 0

        def load(chunk: ChunkRef) -> tuple[ChunkRef, Encoded | ShardfsError]:
            return chunk, self._load(chunk, packs[chunk.id])

        coming = _announced(self._reader, refs)
        with closing(in_order(load, coming, threads=THREADS, ahead=AHEAD_BYTES, size=lambda c: c.size)) as arriving:
            for chunk, found in arriving:
                if isinstance(found, ShardfsError):
                    self.failed[chunk.id] = found
                    continue
                waiting.append((chunk, found))
                size += len(found.payload)
                done += len(found.payload)
                tell(done)
                if size >= _FLUSH_SIZE:
                    self._flush(waiting)
                    waiting, size = [], 0
        self._flush(waiting)

    def _load(self, chunk: ChunkRef, pack: PackId) -> Encoded | ShardfsError:
        """The verified payload of a chunk, or why not; of a pack that nobody gives nothing more is asked for."""
        try:
            if pack in self._losses.errors:
                return self._losses.errors[pack]
            with self._losses.patience():
                return self._reader.payload(Kind.CHUNK, chunk.id, is_exact=True)[0]
        except RemoteError as error:
            self._losses.note(pack, error)
            return error
        except (IntegrityError, NotFoundError) as error:
            return error

    def _flush(self, items: list[tuple[ChunkRef, Encoded]]) -> None:
        if items:
            with self._store.batch("fetch") as batch:
                for chunk, encoded in items:
                    batch.put_encoded(Kind.CHUNK, chunk.id, encoded, chunk.size)
            self.chunks += len(items)
            self.size += sum(len(encoded.payload) for _, encoded in items)
