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
from shardfs.store.lost import Lost
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


class _Way:
    """Chunks that wait for a base, from the one that was asked for on."""

    def __init__(self, ids: tuple[bytes, ...] = (), lost: Lost | None = None) -> None:
        self.ids = ids
        self.lost = lost or Lost()
        self.is_tied = False  # whether something below failed because of these chunks

    def down(self, id_: bytes) -> _Way:
        """The way that goes on with a chunk."""
        return _Way((*self.ids, id_), self.lost)


class PlaintextSource:
    """Verified plaintext by id. Keeps some of it, so that a chain of bases is decoded once."""

    def __init__(self, copies_of: Callable[[bytes, Kind], Iterable[Copy]], budget_bytes: int = 64 << 20) -> None:
        """Read the copies that `copies_of` knows of an id, and keep up to `budget_bytes` of chunks."""
        self._copies_of = copies_of
        self._memory = PlaintextMemory(budget_bytes)
        self._depths: dict[bytes, int] = {}  # bases in a row below each chunk that was decoded

    def read(self, id_: bytes, kind: Kind) -> bytes:
        """The plaintext of an id of a kind; errors as `read_plaintext`."""
        return self._read(id_, kind, _Way())

    def decode(self, entry: Entry, encoded: Encoded) -> bytes:
        """The verified plaintext of one copy.

        Raises:
            MalformedError: it is damaged, or its bases form a circle or a chain of more than `MAX_BASE_DEPTH`.
            ChunkNotFoundError, ChunkCorruptedError: a base cannot be read.
        """
        return self._decode(entry, encoded, _Way())

    def _read(self, id_: bytes, kind: Kind, way: _Way) -> bytes:
        found = self._memory.get(id_) if kind is Kind.CHUNK else None
        if found is not None:
            return found
        if (lost := way.lost.get(id_)) is not None:
            raise lost
        known = list(self._copies_of(id_, kind))
        if not known:
            msg = f"{kind.name.lower()} {id_.hex()[:12]} is not here"
            raise ChunkNotFoundError(msg) if kind is Kind.CHUNK else ObjectNotFoundError(msg)
        here = _Way(way.ids, way.lost)
        for entry, payload in known:
            try:
                return self._decode(entry, payload(), here)
            except (FormatError, IntegrityError, NotFoundError):
                continue
        msg = f"every copy of {kind.name.lower()} {id_.hex()[:12]} is damaged"
        error = ChunkCorruptedError(msg) if kind is Kind.CHUNK else ObjectCorruptedError(msg)
        way.lost.add(id_, error, is_tied=here.is_tied)
        way.is_tied |= here.is_tied
        raise error

    def _decode(self, entry: Entry, encoded: Encoded, way: _Way) -> bytes:
        if entry.id in way.ids or len(way.ids) > MAX_BASE_DEPTH:
            way.is_tied = True
            raise _too_deep(entry)
        below = way.down(entry.id)
        try:
            plaintext = copies.decode(
                entry.kind, entry.id, encoded, entry.raw_size, lambda base: self._read(base, Kind.CHUNK, below)
            )
        finally:
            way.is_tied |= below.is_tied
        depth = 1 + max(self._depths[base] for base in entry.bases) if entry.bases else 0
        if depth > MAX_BASE_DEPTH:
            raise _too_deep(entry)
        if entry.kind is Kind.CHUNK:
            self._depths[entry.id] = depth
            self._memory.put(entry.id, plaintext)
        return plaintext


def _too_deep(entry: Entry) -> MalformedError:
    return MalformedError(f"base {entry.id.hex()[:12]} is in a circle or in a chain of more than {MAX_BASE_DEPTH}")
