"""One copy of a payload: is its description possible, and does it decode to the plaintext that its id names."""

from __future__ import annotations

from collections.abc import Callable

from shardfs.codecs import registry
from shardfs.codecs.base import Buffer
from shardfs.codecs.registry import Encoded
from shardfs.errors import MalformedError
from shardfs.formats.ids import ID_SIZE, Kind, content_id
from shardfs.formats.pack import Entry, max_raw_size
from shardfs.store.index import Location


def doubt(location: Location, kind: Kind, raw_size: int | None) -> str | None:
    """Why a row of the index cannot be true, or None.

    A flipped bit in the database can turn any column into anything; nothing may be read or allocated by it before
    this.

    Args:
        location: the row.
        kind: what is looked for.
        raw_size: bytes of plaintext, None when not known before.
    """
    entry = location.entry
    if not isinstance(location.place, str) or not _is_id(location.pack):
        return "the index names no pack"
    if any(type(n) is not int or n < 0 for n in (entry.codec, entry.offset, entry.stored_size, entry.raw_size)):
        return "the index names sizes that are none"
    if not all(map(_is_id, entry.bases)):
        return "the index names a base that is no id"
    return describes(entry, kind, raw_size)


def describes(entry: Entry, kind: Kind, raw_size: int | None) -> str | None:
    """Why an entry cannot be what is looked for, or None; arguments as in `doubt`."""
    if entry.kind is not kind:
        return f"it is stored as a {entry.kind.name.lower()}"
    if raw_size is not None and entry.raw_size != raw_size:
        return f"it is stored as {entry.raw_size} bytes, expected {raw_size}"
    if entry.raw_size > max_raw_size(kind) or entry.stored_size > entry.raw_size:
        return f"it declares {entry.raw_size} bytes"
    return None


def decode(kind: Kind, id_: bytes, encoded: Encoded, raw_size: int, base_of: Callable[[bytes], Buffer]) -> bytes:
    """The plaintext of a payload, verified against its id.

    Args:
        kind: what the id names.
        id_: id of the plaintext.
        encoded: the payload.
        raw_size: bytes of the plaintext; never more are produced.
        base_of: gives the verified plaintext of a base chunk.

    Raises:
        MalformedError: the payload is damaged. UnsupportedVersionError: unknown codec.
        ShardfsError: what `base_of` raises.
    """
    codec = registry.codec_by_code(encoded.codec)
    if len(encoded.bases) != codec.base_count or (encoded.bases and kind is not Kind.CHUNK):
        msg = f"a {kind.name.lower()} in codec {codec.name} names {len(encoded.bases)} bases"
        raise MalformedError(msg)
    bases = [base_of(base) for base in encoded.bases]
    plaintext = registry.decode(encoded.codec, encoded.payload, raw_size, bases)
    if len(plaintext) != raw_size or content_id(kind, plaintext) != id_:
        msg = "its bytes do not have its id"
        raise MalformedError(msg)
    return plaintext


def verify_object(entry: Entry, payload: Buffer) -> None:
    """Check the payload of a commit, tree or manifest against its entry.

    Raises:
        MalformedError, UnsupportedVersionError: it does not decode to what its id names.
    """
    if reason := describes(entry, entry.kind, None):
        raise MalformedError(reason)

    def no_base(id_: bytes) -> bytes:
        msg = f"an object names the base {id_.hex()[:12]}"
        raise MalformedError(msg)

    decode(entry.kind, entry.id, Encoded(entry.codec, bytes(payload), entry.bases), entry.raw_size, no_base)


def _is_id(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == ID_SIZE
