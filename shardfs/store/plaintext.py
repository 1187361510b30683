"""Verified plaintext from the packs of one store. Knows no cache and no remote."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    ChunkCorruptedError,
    ChunkNotFoundError,
    FormatError,
    IntegrityError,
    MalformedError,
    NotFoundError,
    ObjectCorruptedError,
    ObjectNotFoundError,
)
from shardfs.formats.ids import Kind
from shardfs.formats.pack import Entry
from shardfs.store import copies
from shardfs.store.index import LOCAL, Location
from shardfs.store.memory import PlaintextMemory
from shardfs.store.store import Store


def local_copies(store: Store, id_: bytes, kind: Kind) -> list[Location]:
    """Copies of an id of a kind in the store's own packs."""
    return [c for c in store.find(id_) if c.place == LOCAL and c.entry.kind is kind]


def read_plaintext(store: Store, id_: bytes, kind: Kind) -> bytes:
    """The plaintext of an id from the first local copy that is sound.

    Raises:
        ChunkNotFoundError, ObjectNotFoundError: no local pack has it.
        ChunkCorruptedError, ObjectCorruptedError: all local copies are damaged.
    """
    return PlaintextSource(partial(stored_copies, store)).read(id_, kind)


Copy = tuple[Entry, Callable[[], Encoded]]
"""The description of one copy of an id, and what reads its payload."""


def stored_copies(store: Store, id_: bytes, kind: Kind) -> list[Copy]:
    """The copies in a store's own packs."""
    return [(copy.entry, partial(store.read, copy)) for copy in local_copies(store, id_, kind)]


class PlaintextSource:
    """Verified plaintext by id. Keeps some of it, so that a chain of bases is decoded once."""

    def __init__(self, copies_of: Callable[[bytes, Kind], Iterable[Copy]], budget_bytes: int = 64 << 20) -> None:
        """Read the copies that `copies_of` knows of an id, and keep up to `budget_bytes` of chunks."""
        self._copies_of = copies_of
        self._memory = PlaintextMemory(budget_bytes)
        self._depths: dict[bytes, int] = {}  # bases in a row below each chunk that was decoded

    def read(self, id_: bytes, kind: Kind, trail: tuple[bytes, ...] = ()) -> bytes:
        """The plaintext of an id; errors as `read_plaintext`.

        Args:
            id_: what to look for.
            kind: what it must be.
            trail: chunks that wait for this one as their base.
        """
        found = self._memory.get(id_) if kind is Kind.CHUNK else None
        if found is not None:
            return found
        known = list(self._copies_of(id_, kind))
        if not known:
            msg = f"{kind.name.lower()} {id_.hex()[:12]} is not here"
            raise ChunkNotFoundError(msg) if kind is Kind.CHUNK else ObjectNotFoundError(msg)
        for entry, payload in known:
            try:
                return self.decode(entry, payload(), trail)
            except (FormatError, IntegrityError, NotFoundError):
                continue
        msg = f"every copy of {kind.name.lower()} {id_.hex()[:12]} is damaged"
        raise ChunkCorruptedError(msg) if kind is Kind.CHUNK else ObjectCorruptedError(msg)

    def decode(self, entry: Entry, encoded: Encoded, trail: tuple[bytes, ...] = ()) -> bytes:
        """The verified plaintext of one copy.

        Raises:
            MalformedError: it is damaged, or its bases form a circle or a chain of more than `MAX_BASE_DEPTH`.
            ChunkNotFoundError, ChunkCorruptedError: a base cannot be read.
        """
        if entry.id in trail or len(trail) > MAX_BASE_DEPTH:
            raise _too_deep(entry)
        below = (*trail, entry.id)
        plaintext = copies.decode(
            entry.kind, entry.id, encoded, entry.raw_size, lambda base: self.read(base, Kind.CHUNK, below)
        )
        depth = 1 + max(self._depths[base] for base in entry.bases) if entry.bases else 0
        if depth > MAX_BASE_DEPTH:
            raise _too_deep(entry)
        if entry.kind is Kind.CHUNK:
            self._depths[entry.id] = depth
            self._memory.put(entry.id, plaintext)
        return plaintext


def _too_deep(entry: Entry) -> MalformedError:
    return MalformedError(f"base {entry.id.hex()[:12]} is in a circle or in a chain of more than {MAX_BASE_DEPTH}")
