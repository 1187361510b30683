"""Chains of bases: how deep a stored chunk is, and which chunks a new delta may name.

A delta of depth d needs d chunks decoded before it. Depths are those of one copy of each chunk, the one that a reader
tries first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
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
        return depth_of(id_, self._bases_of, self._depths, unknown=_UNUSABLE)

    def _bases_of(self, id_: bytes) -> tuple[bytes, ...] | None:
        entry = self._entries.get(id_)
        return None if entry is None else entry.bases

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


def depth_of(
    id_: bytes, bases_of: Callable[[bytes], Sequence[bytes] | None], known: dict[bytes, int], *, unknown: int
) -> int:
    """Links below a chunk. The tables of remotes may name chains of any length, longer than Python recurses.

    Args:
        id_: of the chunk.
        bases_of: the bases of a chunk; None when it is not known.
        known: depths that were found before; those on the way are added.
        unknown: the depth of a chunk that is not known, and of one that needs itself.
    """
    stack = [id_] if id_ not in known else []
    while stack:
        here = stack[-1]
        bases = bases_of(here)
        entered = here in known
        known.setdefault(here, unknown)
        if not entered and (waiting := [base for base in bases or () if base not in known]):
            stack += waiting
            continue
        stack.pop()
        if bases is not None:
            known[here] = 1 + max(known[base] for base in bases) if bases else 0
    return known[id_]


def decodable(copies: Iterable[tuple[bytes, Sequence[bytes]]]) -> set[bytes]:
    """Chunks that can be decoded with nothing but some copies of chunks, each an id and the bases that it needs."""
    found: set[bytes] = set()
    waiting: dict[bytes, list[tuple[bytes, Sequence[bytes]]]] = {}
    todo = list(copies)
    while todo:
        id_, bases = copy = todo.pop()
        missing = next((base for base in bases if base not in found), None)
        if missing is not None:
            waiting.setdefault(missing, []).append(copy)
        elif id_ not in found:
            found.add(id_)
            todo += waiting.pop(id_, ())
    return found
