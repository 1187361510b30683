"""Which stored chunks the chunks of a new file are likely to differ little from.

First the same path in the commit before; for its tensors then the newest file of the repository that has a tensor of
the same name, type and shape; then one with a tensor that starts with the same bytes. Arrays of npy files have no
names: their bytes decide before their shape does. A wrong guess costs time, and equal bytes that are cut in another
way; the encoder compares.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

from blake3 import blake3

from shardfs.chunking import LARGE_TENSOR
from shardfs.codecs import registry
from shardfs.codecs.registry import Base, Encoded
from shardfs.diff import tensors
from shardfs.errors import FormatError, IntegrityError, NotFoundError, RemoteError, RemoteUnavailableError, StoreError
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, TreeId
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.pack import Entry
from shardfs.formats.tree import DirEntry, FileEntry
from shardfs.history.content import FileReader
from shardfs.history.objects import BaseSource, Objects
from shardfs.staging.ranges import Ranges
from shardfs.staging.workspace import Workspace
from shardfs.store.chains import Chains
from shardfs.store.plaintext import Copy, PlaintextSource
from shardfs.store.store import Batch, Store
from shardfs.store.tensor_index import Place, TensorIndex
from shardfs.tensors import Layout, ReadAt, detect
from shardfs.tensors.layout import Stretch

_log = logging.getLogger(__name__)

HEAD_SIZE: Final = LARGE_TENSOR
"""Bytes at the front of a tensor that tell it from others. Equal heads give equal cuts, and the chunks decide."""

_CONTAINERS: Final = 2
_TELLING: Final = 2  # words of a name that tell a tensor from others: "weight" alone does not
_UNREADABLE: Final = (FormatError, IntegrityError, NotFoundError, RemoteError, StoreError)


def bases_for(repo: Workspace, batch: Batch, before: CommitId | None) -> Bases:
    """Bases for files that `batch` adds to a repository, after the commit `before`."""
    tree = None if before is None else repo.objects.commit(before).tree
    return Bases(repo.store, batch, repo.objects, repo.chunks, tree, repo.settings.chain_depth)


class Bases:
    """Finds bases for the files of one batch and reads them.

    `data`, `chunk` and `stored` are for any thread, the rest for one.
    """

    def __init__(
        self, store: Store, batch: Batch, objects: Objects, chunks: BaseSource, before: TreeId | None, max_depth: int
    ) -> None:
        """Look for bases of what goes into `batch`.

        Args:
            store: whose tensors are known.
            batch: where the new chunks go; may hold bases itself.
            objects: reads trees and manifests.
            chunks: reads bases.
            before: the tree whose files new ones replace.
            max_depth: most chunks that must be decoded before a new one.
        """
        self._store = store
        self._batch = batch
        self._objects = objects
        self._chunks = chunks
        self._is_cut_off = False  # whether a remote failed
        self._before = before
        self._tensors = TensorIndex(store.layout.root)
        self._chains = Chains(partial(_entries, store, batch), max_depth)
        self._pending = PlaintextSource(self._copies)
        self._manifests: dict[ManifestId, Manifest] = {}  # of this batch, which `objects` cannot read yet
        self._places: dict[bytes, Place] = {}  # that this batch adds

    def reader(self, entry: FileEntry) -> FileReader:
        """Reads a stored file. Errors as `FileReader`."""
        return FileReader(entry, self._objects, self)

    def find(
        self, path: bytes, layout: Layout | None, read_at: ReadAt, below: tuple[FileReader, Ranges] | None = None
    ) -> FileBases:
        """The bases for a new file.

        Args:
            path: in the tree.
            layout: of the new file.
            read_at: reads the new file.
            below: what the new file was made of by changes in place, and the ranges that did not change; it
                counts as the version before. What it starts tensors with is known and not read again.
        """
        large = tensors.large(layout)
        new = [s for s in large if below is None or not below[1].covers(s.start, s.start + HEAD_SIZE)]
        found = FileBases({s.start: _head_key(read_at(s.start, HEAD_SIZE), s.end - s.start) for s in new})
        previous = self._previous(path) if below is None else below[0]
        if previous is not None:
            found.before = previous.manifest
            if large or below is not None:
                self._match(found, large, previous, path)
        self._match_others(found, [stretch for stretch in new if stretch.start not in found.chunks])
        refs = [ref for chunks in found.chunks.values() for ref in chunks]
        self._chains.learn({ref.id for ref in (*refs, *(found.before.chunks if found.before else ()))})
        return found

    def remember(self, manifest: Manifest, layout: Layout, heads: Mapping[int, bytes]) -> None:
        """Have the tensors of a new file found later, by their names and by the keys of their heads."""
        self._manifests[manifest.id] = manifest
        places: dict[bytes, Place] = {}
        inner: dict[bytes, Place] = {}  # by parts of names: whole ones decide
        for stretch in tensors.large(layout):
            place = Place(manifest.id, stretch.start, stretch.end)
            whole, *parts = _name_keys(stretch)
            places[whole] = place
            inner |= {part: place for part in parts if part not in inner}
            if (head := heads.get(stretch.start)) is not None:
                places[head] = place
        self._places |= inner | places

    def save(self) -> None:
        """Keep what was remembered for later batches."""
        self._tensors.remember(self._places)
        self._places = {}

    def data(self, ref: ChunkRef, for_: bytes) -> list[Base]:
        """The plaintexts of what a chunk with the id `for_` may be stored as a difference to; none if unreadable."""
        try:
            return [Base(base.id, self._read(base)) for base in self._chains.bases(ref.id, for_)]
        except _UNREADABLE as error:
            _log.info("base %s cannot be read: %s", ref.id.hex()[:12], error)
            return []

    def absent(self, bases: Iterable[bytes], dtype: str | None) -> dict[bytes, tuple[Encoded, int]] | None:
        """What a difference to these chunks needs and neither the store nor the batch holds: payloads and raw sizes.

        It is stored beside the difference, so that everything here can be read without a remote. None if it cannot be
        had.

        Args:
            bases: ids of chunks that were read.
            dtype: of their values.
        """
        found: dict[bytes, tuple[Encoded, int]] = {}
        wanted = self._not_here(bases)
        try:
            while wanted:
                id_ = wanted.pop()
                encoded, plaintext = self._chunks.payload(Kind.CHUNK, id_)
                if encoded.codec == registry.RAW.code:  # as the cache keeps it
                    encoded = registry.encode(plaintext, dtype)
                found[id_] = encoded, len(plaintext)
                wanted |= self._not_here(encoded.bases) - found.keys()
        except _UNREADABLE as error:
            _log.info("a base cannot be read: %s", error)
            return None
        return found

    def stored(self, id_: ChunkId, data: memoryview, bases: tuple[bytes, ...]) -> None:
        """Take note of a new chunk that is stored as a difference to `bases`."""
        if any(self._chains.depth(base) for base in bases):
            self._chunks.remember(id_, data)

    def _read(self, ref: ChunkRef) -> bytes:
        if self._batch.entry(ref.id) is not None:
            return self._pending.read(ref.id, Kind.CHUNK)
        return self.chunk(ref.id, ref.size)

    def _copies(self, id_: bytes, _: Kind) -> list[Copy]:
        """The copy in the batch, which it alone can read, or the plaintext from wherever it is."""
        entry = self._batch.entry(id_)
        if entry is not None:
            return [(entry, partial(self._batch.read, id_))]
        size = self._chains.size(id_)
        if size is None:
            return []
        plain = Entry(id_, Kind.CHUNK, registry.RAW.code, 0, size, size)
        return [(plain, lambda: Encoded(registry.RAW.code, self.chunk(ChunkId(id_), size)))]

    def chunk(self, id_: ChunkId, raw_size: int) -> bytes:
        """A stored chunk, as `ChunkSource.chunk` says.

        Once a remote has failed it is asked for nothing more: a commit would wait for its deadline at every chunk.
        """
        if self._is_cut_off and not self._is_here(id_):
            msg = f"chunk {id_.hex()[:12]} or a base of it is only at a remote, and a remote has failed"
            raise RemoteUnavailableError(msg)
        try:
            return self._chunks.chunk(id_, raw_size)
        except RemoteError:
            self._is_cut_off = True
            raise

    def _not_here(self, ids: Iterable[bytes]) -> set[bytes]:
        outside = {id_ for id_ in ids if self._batch.entry(id_) is None}
        return outside - self._store.index.has(outside, local=True) if outside else outside

    def _is_here(self, id_: ChunkId) -> bool:
        self._chains.learn([id_])
        needed = self._chains.below(id_)
        return self._store.index.has(needed, local=True) == needed

    def _previous(self, path: bytes) -> FileReader | None:
        """The file at the same path in the tree before."""
        tree_id = self._before
        *folders, name = path.split(b"/")
        try:
            for folder in folders:
                entry = None if tree_id is None else self._objects.tree(tree_id).by_name.get(folder)
                tree_id = entry.tree if isinstance(entry, DirEntry) else None
            entry = None if tree_id is None else self._objects.tree(tree_id).by_name.get(name)
            return FileReader(entry, self._objects, self) if isinstance(entry, FileEntry) else None
        except _UNREADABLE as error:
            _log.info("the version before of %r cannot be read: %s", path, error)
            return None

    def _match(self, found: FileBases, large: list[Stretch], previous: FileReader, path: bytes) -> None:
        """Bases for tensors that the version before has too."""
        try:
            layout = detect(previous.read_at, previous.size, path.rpartition(b"/")[2])
        except _UNREADABLE as error:
            _log.info("the version before of %r cannot be read: %s", path, error)
            return
        before = tensors.large(layout)
        found.between = Ranges((0, previous.size) if previous.size else ())
        for stretch in before:
            found.between.remove(stretch.start, stretch.end)
        for new, old, same_shape in tensors.matches(large, before):
            if not same_shape:
                found.doubtful.add(new.start)
            found.chunks[new.start] = previous.manifest.within(old.start, old.end)
            found.ends.append((new.end, old.end))

    def _match_others(self, found: FileBases, stretches: list[Stretch]) -> None:
        """Bases for tensors that another file has."""
        keys = {stretch.start: _keys(stretch, found.heads[stretch.start]) for stretch in stretches}
        places = self._places_of(key for several in keys.values() for key in several)
        for start, several in keys.items():
            place = next((places[key] for key in several if key in places), None)
            if chunks := self._chunks_at(place):
                found.chunks[start] = chunks

    def _places_of(self, keys: Iterable[bytes]) -> dict[bytes, Place]:
        wanted = list(keys)
        here = {key: self._places[key] for key in wanted if key in self._places}
        return self._tensors.find(key for key in wanted if key not in here) | here

    def _chunks_at(self, place: Place | None) -> tuple[ChunkRef, ...]:
        if place is None:
            return ()
        try:
            manifest = self._manifests.get(place.manifest) or self._objects.manifest(place.manifest)
        except _UNREADABLE:
            return ()
        return manifest.within(place.start, place.end)


class FileBases:
    """The bases for one new file.

    Attributes:
        before: the manifest of the version before.
        chunks: by the start of a tensor, the chunks of the same tensor in another file.
        doubtful: starts of tensors that gained or lost rows: their chunks are compared one by one.
        between: what lies between tensors in the version before, as far as that is known.
        ends: ends of tensors in this file and in the version before, ascending.
        heads: by the start of a tensor, the key of the bytes that it starts with.
    """

    def __init__(self, heads: Mapping[int, bytes]) -> None:
        self.before: Manifest | None = None
        self.chunks: dict[int, tuple[ChunkRef, ...]] = {}
        self.doubtful: set[int] = set()
        self.between = Ranges()
        self.ends: list[tuple[int, int]] = []
        self.heads = heads

    def tensor(self, start: int) -> tuple[ChunkRef, ...]:
        """The chunks of the same tensor elsewhere, from its start on; none when it is new."""
        return self.chunks.get(start, ())

    def at(self, offset: int) -> ChunkRef | None:
        """The chunk of the version before that bytes between tensors at `offset` most likely were in."""
        if self.before is None:
            return None
        nearest = bisect_right(self.ends, (offset, 1 << 63)) - 1
        if nearest >= 0:
            new, old = self.ends[nearest]
            offset += old - new
        position = self.before.position(offset)
        return self.before.chunks[position] if position < len(self.before.chunks) else None


def _keys(stretch: Stretch, head: bytes) -> list[bytes]:
    """By what a tensor is looked for in other files, the most telling first."""
    names = _name_keys(stretch)
    return [*names, head] if stretch.name else [head, *names]


def _name_keys(stretch: Stretch) -> list[bytes]:
    """Keys of a tensor by its name, and by what is left of it without up to two containers in front.

    Checkpoints put a model's tensors below "model", "state_dict.model" or "module".
    """
    words = stretch.name.split(".")
    names = [words[start:] for start in range(_CONTAINERS + 1) if start == 0 or len(words) - start >= _TELLING]
    return [blake3(repr((".".join(n), stretch.dtype, stretch.shape)).encode()).digest(16) for n in names]


def _head_key(head: bytes, size: int) -> bytes:
    return blake3(size.to_bytes(8, "little") + head).digest(16)


def _entries(store: Store, batch: Batch, ids: Iterable[bytes]) -> dict[bytes, Entry]:
    wanted = set(ids)
    here = {id_: entry for id_ in wanted if (entry := batch.entry(id_)) is not None}
    return {id_: place.entry for id_, place in store.index.find_many(wanted - here.keys()).items()} | here
