"""Chains of bases: how deep a stored chunk is, and which chunks a new delta may name.

A delta of depth d needs d chunks decoded before it. Depths are those of one copy of each chunk, the one that a reader
tries first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.formats.ids import ChunkId, Kind
from shardfs.formats.manifest import ChunkRef
from shardfs.formats.pack import Entry
from shardfs.store.index import Index

_MAX_KNOWN: Final = 200_000  # entries, about 60 MB
_UNUSABLE: Final = MAX_BASE_DEPTH + 1


def of_index(index: Index) -> Chains:
    """The chains of all chunks that an index knows, however long they are."""
    return Chains(lambda ids: {id_: copy.entry for id_, copy in index.find_many(ids).items()}, MAX_BASE_DEPTH)


class Chains:
    """What is known of the chains below some chunks. Safe to share between threads."""

    def __init__(self, entries_of: Callable[[Iterable[bytes]], Mapping[bytes, Entry]], max_depth: int) -> None:
        """Chains of at most `max_depth` links; `entries_of` tells how chunks are stored."""
        self._entries_of = entries_of
        self._max_depth = max_depth
        self._entries: dict[bytes, Entry] = {}
        self._depths: dict[bytes, int] = {}
        self._guard = threading.RLock()

    def learn(self, ids: Iterable[bytes]) -> None:
        """Look up chunks and all that they depend on."""
        with self._guard:
            self._learn(ids)

    def _learn(self, ids: Iterable[bytes]) -> None:
        wanted = set(ids) - self._entries.keys()
        if len(self._entries) > _MAX_KNOWN:
            self._entries, wanted = {}, set(ids)
        self._depths = {}
        for _ in range(MAX_BASE_DEPTH + 1):
            if not wanted:
                break
            found = {id_: entry for id_, entry in self._entries_of(wanted).items() if entry.kind is Kind.CHUNK}
            self._entries.update(found)
            wanted = {base for entry in found.values() for base in entry.bases} - self._entries.keys()

    def entry(self, id_: bytes) -> Entry | None:
        """How a chunk is stored that was looked up; None when it is not known."""
        return self._entries.get(id_)

    def depth(self, id_: bytes) -> int:
        """Links below a chunk; more than `MAX_BASE_DEPTH` when it cannot be told."""
        with self._guard:
            return self._depth(id_)

    def _depth(self, id_: bytes) -> int:
        known = self._depths.get(id_)
        if known is not None:
            return known
        self._depths[id_] = _UNUSABLE  # what a circle meets
        entry = self._entries.get(id_)
        if entry is not None:
            self._depths[id_] = 1 + max(map(self._depth, entry.bases)) if entry.bases else 0
        return self._depths[id_]

    def size(self, id_: bytes) -> int | None:
        """Bytes of the plaintext of a chunk; None when it is unknown."""
        with self._guard:
            entry = self._entries.get(id_)
            return None if entry is None else entry.raw_size

    def bases(self, id_: bytes, for_: bytes) -> tuple[ChunkRef, ...]:
        """The chunks that a delta of `for_` against `id_` may name: `id_` and its own base, if it has one.

        When the chain of `id_` is as long as it may be, the chunk at its end alone: a distant base costs bytes, and
        still fewer than none. Empty when `id_` is unknown or depends on `for_`.
        """
        with self._guard:
            return self._bases(id_, for_)

    def _bases(self, id_: bytes, for_: bytes) -> tuple[ChunkRef, ...]:
        if self._depth(id_) > MAX_BASE_DEPTH or not self._max_depth:
            return ()
        if self._depth(id_) >= self._max_depth:
            while bases := self._entries[id_].bases:
                id_ = bases[0]
        if for_ in self.below(id_):
            return ()
        return tuple(ChunkRef(ChunkId(i), self._entries[i].raw_size) for i in (id_, *self._entries[id_].bases[:1]))

    def below(self, id_: bytes) -> set[bytes]:
        """A chunk and all that is known to be decoded before it."""
        with self._guard:
            found, stack = {id_}, [id_]
            while stack:
                entry = self._entries.get(stack.pop())
                more = set(entry.bases) - found if entry is not None else set()
                found |= more
                stack += more
            return found
