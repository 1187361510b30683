"""How one file is stored, told from the index alone."""

from __future__ import annotations

from typing import NamedTuple

from shardfs.codecs.registry import codec_by_code
from shardfs.errors import UnsupportedVersionError
from shardfs.formats.tree import FileEntry
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.store.cache import Cache
from shardfs.store.index import LOCAL
from shardfs.store.store import Store


class FileFacts(NamedTuple):
    """How a file is stored.

    Attributes:
        chunks: how many it has, repeated ones counted each time.
        stored: bytes of their encoded forms, each distinct chunk once; bases of deltas are not counted.
        cached: bytes of the file that can be read without a network.
        codecs: names of the codecs, sorted.
    """

    chunks: int
    stored: int
    cached: int
    codecs: tuple[str, ...]


def file_facts(entry: FileEntry, objects: Objects, store: Store, cache: Cache | None) -> FileFacts:
    """The facts of a file; chunks that the index does not know count as not stored.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: the manifest cannot be read.
    """
    manifest = manifest_of(entry, objects)
    found = store.index.find_many({chunk.id for chunk in manifest.chunks})
    here = {id_ for id_, copy in found.items() if copy.place == LOCAL or (cache is not None and cache.contains(id_))}
    return FileFacts(
        chunks=len(manifest.chunks),
        stored=sum(copy.entry.stored_size for copy in found.values()),
        cached=sum(chunk.size for chunk in manifest.chunks if chunk.id in here),
        codecs=tuple(sorted({_codec_name(copy.entry.codec) for copy in found.values()})),
    )


def _codec_name(code: int) -> str:
    try:
        return codec_by_code(code).name
    except UnsupportedVersionError:
        return str(code)
