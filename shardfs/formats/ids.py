"""Content ids: BLAKE3-256 digests as distinct types.

Spec: docs/design/format/objects.md, "Ids". A chunk id is the plain BLAKE3 digest of the plaintext, so that `b3sum`
gives the same value. An object id uses BLAKE3's key derivation mode with one context string per kind: no chunk
can have the id of a tree, and no tree that of a commit.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final, NewType

from blake3 import blake3

from shardfs.errors import MalformedError

ChunkId = NewType("ChunkId", bytes)
ManifestId = NewType("ManifestId", bytes)
TreeId = NewType("TreeId", bytes)
CommitId = NewType("CommitId", bytes)
PackId = NewType("PackId", bytes)

ID_SIZE: Final = 32
_HEX_ID = re.compile(r"[0-9a-f]{64}")


class Kind(IntEnum):
    """What an id names; the values are stored in packs."""

    CHUNK = 1
    MANIFEST = 2
    TREE = 3
    COMMIT = 4


_CONTEXTS: Final = {
    Kind.MANIFEST: "shardfs object manifest v1",
    Kind.TREE: "shardfs object tree v1",
    Kind.COMMIT: "shardfs object commit v1",
}


def chunk_id(data: bytes | bytearray | memoryview) -> ChunkId:
    """The id of a chunk's plaintext."""
    return ChunkId(blake3(data).digest())


def object_id(kind: Kind, canonical: bytes) -> bytes:
    """The id of an object's canonical bytes; `kind` is not `Kind.CHUNK`."""
    return blake3(canonical, derive_key_context=_CONTEXTS[kind]).digest()


def content_id(kind: Kind, plaintext: bytes) -> bytes:
    """The id of any plaintext by its kind: what a reader compares after decoding."""
    return chunk_id(plaintext) if kind is Kind.CHUNK else object_id(kind, plaintext)


def split_ids(joined: bytes) -> tuple[bytes, ...]:
    """Ids that were joined without a separator.

    Raises:
        ValueError: the bytes are not a whole number of ids.
    """
    if len(joined) % ID_SIZE:
        msg = f"{len(joined)} bytes are not ids"
        raise ValueError(msg)
    return tuple(joined[start : start + ID_SIZE] for start in range(0, len(joined), ID_SIZE))


def from_hex(text: object, what: str = "id") -> bytes:
    """The 32 bytes of a 64-digit lower-case hexadecimal id.

    Raises:
        MalformedError: not a string of exactly 64 lower-case hexadecimal digits.
    """
    if not isinstance(text, str) or not _HEX_ID.fullmatch(text):
        found = repr(text[:80]) if isinstance(text, str) else f"a {type(text).__name__}"
        msg = f"{what}: expected 64 lower-case hexadecimal digits, got {found}"
        raise MalformedError(msg)
    return bytes.fromhex(text)


def pack_path(pack_id: bytes) -> str:
    """Where a pack is in its repository, wherever that is: docs/design/format/store.md."""
    name = pack_id.hex()
    return f"packs/{name[:2]}/{name}.pack"
