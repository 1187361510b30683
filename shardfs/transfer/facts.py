"""How one file is stored, told from the indexes of store and cache alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.formats.pack import Entry
from shardfs.formats.tree import FileEntry
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.store.cache import Cache
from shardfs.store.chains import Chains
from shardfs.store.index import LOCAL, Index, Location
from shardfs.store.store import Store
from shardfs.store.tally import Tally


class FileFacts(NamedTuple):
    """How a file is stored.

    Attributes:
        chunks: how many it has, repeated ones counted each time.
        stored: bytes of their encoded forms, each distinct chunk once; bases of deltas are not counted.
        cached: bytes of the file that can be read without a network.
        codecs: names of the codecs, the one of most bytes of the file first.
        depth: chunks in a row that must be decoded before one of the file, at most; more than `MAX_BASE_DEPTH`
            when one of them is not known.
    """

    chunks: int
    stored: int
    cached: int
    codecs: tuple[str, ...]
    depth: int


def file_facts(entry: FileEntry, objects: Objects, store: Store, cache: Cache | None) -> FileFacts:
    """The facts of a file; chunks that the index does not know count as not stored.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: the manifest cannot be read.
    """
    manifest = manifest_of(entry, objects)
    sizes: Counter[bytes] = Counter()
    for chunk in manifest.chunks:
        sizes[chunk.id] += chunk.size
    copies = _Copies(store.index, cache)
    chains = Chains(copies.entries, MAX_BASE_DEPTH)
    chains.learn(sizes)
    tally = Tally()
    for id_, size in sizes.items():
        if (copy := copies.found.get(id_)) is not None:
            tally.add(copy.entry, chains.depth(id_), size)
    cached = sum(size for id_, size in sizes.items() if copies.readable(id_))
    return FileFacts(len(manifest.chunks), tally.stored_bytes, cached, tally.codecs, tally.depth)


class _Copies:
    """Copies of chunks, and which of them can be read here."""

    def __init__(self, index: Index, cache: Cache | None) -> None:
        self.found: dict[bytes, Location] = {}
        self._index = index
        self._cache = cache
        self._readable: dict[bytes, bool] = {}

    def entries(self, ids: Iterable[bytes]) -> dict[bytes, Entry]:
        """How chunks are stored."""
        found = self._index.find_many(ids)
        self.found |= found
        return {id_: copy.entry for id_, copy in found.items()}

    def readable(self, id_: bytes) -> bool:
        """Whether a chunk and all that it depends on are in packs here or in the cache."""
        if id_ not in self._readable:
            self._readable[id_] = False  # what a circle meets
            copy = self.found.get(id_)
            here = copy.entry.bases if copy is not None and copy.place == LOCAL else None
            self._readable[id_] = self._all(here) or (self._cache is not None and self._all(self._cache.bases(id_)))
        return self._readable[id_]

    def _all(self, bases: tuple[bytes, ...] | None) -> bool:
        return bases is not None and all(map(self.readable, bases))
