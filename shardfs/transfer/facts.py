"""How one file is stored, told from the indexes of store and cache alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.formats.pack import Entry
from shardfs.formats.tree import FileEntry
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.store.cache import Cache
from shardfs.store.chains import Chains, decodable
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
    readable = copies.readable(sizes)
    cached = sum(size for id_, size in sizes.items() if id_ in readable)
    return FileFacts(len(manifest.chunks), tally.stored_bytes, cached, tally.codecs, tally.depth)


def readable(ids: Collection[bytes], index: Index, cache: Cache | None) -> set[bytes]:
    """Of some chunks and what they depend on, all that can be decoded with packs here and the cache."""
    copies = _Copies(index, cache)
    Chains(copies.entries, MAX_BASE_DEPTH).learn(ids)
    return copies.readable(ids)


class _Copies:
    """Copies of chunks, and which of them can be read here."""

    def __init__(self, index: Index, cache: Cache | None) -> None:
        self.found: dict[bytes, Location] = {}
        self._index = index
        self._cache = cache

    def entries(self, ids: Iterable[bytes]) -> dict[bytes, Entry]:
        """How chunks are stored."""
        found = self._index.find_many(ids)
        self.found |= found
        return {id_: copy.entry for id_, copy in found.items()}

    def readable(self, ids: Collection[bytes]) -> set[bytes]:
        """Of `ids` and what they depend on, all that can be decoded with packs here and the cache."""
        copies: list[tuple[bytes, tuple[bytes, ...]]] = []
        seen, todo = set(ids), list(ids)
        while todo:
            id_ = todo.pop()
            for bases in self._bases(id_):
                copies.append((id_, bases))
                todo += set(bases) - seen
                seen.update(bases)
        return decodable(copies)

    def _bases(self, id_: bytes) -> Iterator[tuple[bytes, ...]]:
        """What the copies of a chunk that are here need: the one in a pack, and the one in the cache."""
        copy = self.found.get(id_)
        here = copy.entry.bases if copy is not None and copy.place == LOCAL else None
        if here is not None:
            yield here
        if here != () and self._cache is not None and (cached := self._cache.bases(id_)) is not None:
            yield cached
