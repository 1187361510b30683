"""Verified plaintext from the packs of one store. Knows no cache and no remote."""

from __future__ import annotations

from shardfs.codecs import registry
from shardfs.codecs.base import MAX_BASE_DEPTH
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
from shardfs.formats.ids import Kind, content_id
from shardfs.store.index import LOCAL, Location
from shardfs.store.store import Store


def local_copies(store: Store, id_: bytes, kind: Kind) -> list[Location]:
    """Copies of an id of a kind in the store's own packs."""
    return [c for c in store.find(id_) if c.place == LOCAL and c.entry.kind is kind]


def read_plaintext(store: Store, id_: bytes, kind: Kind, depth: int = 0) -> bytes:
    """The plaintext of an id from the first local copy that is sound.

    Args:
        store: where to look.
        id_: what to look for.
        kind: what it must be.
        depth: how many payloads already wait for this one as their base.

    Raises:
        ChunkNotFoundError, ObjectNotFoundError: no local pack has it.
        ChunkCorruptedError, ObjectCorruptedError: all local copies are damaged.
    """
    chunk = kind is Kind.CHUNK
    copies = local_copies(store, id_, kind)
    if not copies:
        msg = f"{kind.name.lower()} {id_.hex()[:12]} is not here"
        raise ChunkNotFoundError(msg) if chunk else ObjectNotFoundError(msg)
    for copy in copies:
        try:
            return _decode(store, copy, depth)
        except (FormatError, IntegrityError, NotFoundError):
            continue
    msg = f"every copy of {kind.name.lower()} {id_.hex()[:12]} is damaged"
    raise ChunkCorruptedError(msg) if chunk else ObjectCorruptedError(msg)


def _decode(store: Store, copy: Location, depth: int) -> bytes:
    entry = copy.entry
    encoded = store.read(copy)
    base = None
    if encoded.base is not None:
        if depth >= MAX_BASE_DEPTH:
            msg = f"more than {MAX_BASE_DEPTH} bases in a row"
            raise MalformedError(msg)
        base = read_plaintext(store, encoded.base, Kind.CHUNK, depth + 1)
    plaintext = registry.decode(encoded.codec, encoded.payload, entry.raw_size, base)
    if content_id(entry.kind, plaintext) != entry.id:
        msg = f"payload of {entry.id.hex()[:12]} does not match its id"
        raise MalformedError(msg)
    return plaintext
