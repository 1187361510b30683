"""Manifest: the ordered chunks that rebuild one file. Spec: docs/design/format/objects.md, "Manifest"."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

from shardfs.errors import MalformedError
from shardfs.formats import canonical
from shardfs.formats.ids import ChunkId, Kind, ManifestId, from_hex, object_id

MAX_CHUNK_SIZE: Final = 16 << 20  # bytes of plaintext; also the most that any decoder produces for a chunk
_KEYS = frozenset({"type", "version", "size", "chunks", "media"})
_MEDIA_KEYS = frozenset({"format", "framework", "tensors", "parameters"})


class ChunkRef(NamedTuple):
    """One chunk of a file: its id and plaintext size in bytes (1 to MAX_CHUNK_SIZE)."""

    id: ChunkId
    size: int


class Span(NamedTuple):
    """A part of one chunk: bytes [start, end) of the chunk's plaintext."""

    chunk: ChunkRef
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Media:
    """What a recognised model file holds: format ("safetensors", ...), framework, counts (None when unknown)."""

    format: str
    framework: str | None = None
    tensors: int | None = None
    parameters: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Members that are known, as stored in a manifest or a commit."""
        pairs = {
            "format": self.format,
            "framework": self.framework,
            "tensors": self.tensors,
            "parameters": self.parameters,
        }
        return {key: value for key, value in pairs.items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> Media:
        """The media of stored members.

        Raises:
            MalformedError: wrong types or unknown members.
        """
        if not isinstance(value, dict):
            msg = "manifest media is not an object"
            raise MalformedError(msg)
        canonical.check_keys(value, "media", _MEDIA_KEYS)
        name, framework = value.get("format"), value.get("framework")
        if not isinstance(name, str) or not (framework is None or isinstance(framework, str)):
            msg = "manifest media: format and framework must be strings"
            raise MalformedError(msg)
        counts = [
            canonical.integer(value[key], f"media {key}") if key in value else None for key in ("tensors", "parameters")
        ]
        return cls(name, framework, counts[0], counts[1])


@dataclass(frozen=True)
class Manifest:
    """The ordered chunks of one file of `size` bytes; chunk sizes sum up to `size`."""

    size: int
    chunks: tuple[ChunkRef, ...]
    media: Media | None = None

    def to_bytes(self) -> bytes:
        """Canonical bytes."""
        value: dict[str, Any] = {
            "type": "manifest",
            "version": 1,
            "size": self.size,
            "chunks": [[c.id.hex(), c.size] for c in self.chunks],
        }
        if self.media is not None:
            value["media"] = self.media.to_json()
        return canonical.dumps(value)

    @cached_property
    def id(self) -> ManifestId:
        """The id of the canonical bytes."""
        return ManifestId(object_id(Kind.MANIFEST, self.to_bytes()))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """The manifest in canonical bytes.

        Raises:
            MalformedError: any broken rule, also bytes that are not canonical.
        """
        value = canonical.loads(data, "manifest")
        canonical.check_keys(value, "manifest", _KEYS)
        if not isinstance(value.get("chunks"), list):
            msg = "manifest has no list of chunks"
            raise MalformedError(msg)
        chunks = tuple(_chunk_ref(item) for item in value["chunks"])
        size = canonical.integer(value.get("size"), "manifest size")
        if sum(c.size for c in chunks) != size:
            msg = f"manifest of {size} bytes lists chunks of {sum(c.size for c in chunks)} bytes"
            raise MalformedError(msg)
        media = Media.from_json(value["media"]) if "media" in value else None
        manifest = cls(size, chunks, media)
        if manifest.to_bytes() != data:
            msg = "manifest is not in canonical form"
            raise MalformedError(msg)
        return manifest

    @cached_property
    def _ends(self) -> list[int]:
        ends, total = [], 0
        for chunk in self.chunks:
            total += chunk.size
            ends.append(total)
        return ends

    def position(self, offset: int) -> int:
        """The number of the chunk that holds byte `offset`, counted from 0; past the end the number of chunks."""
        return bisect_right(self._ends, offset)

    def at(self, offset: int) -> ChunkRef | None:
        """The chunk that starts at byte `offset`, if one does."""
        position = self.position(offset)
        starts = position < len(self.chunks) and self._ends[position] - self.chunks[position].size == offset
        return self.chunks[position] if starts else None

    def within(self, start: int, end: int) -> tuple[ChunkRef, ...]:
        """The chunks from byte `start` on that lie wholly before `end`; none when no chunk starts at `start`."""
        first = self.position(start)
        if first == len(self.chunks) or self._ends[first] - self.chunks[first].size != start:
            return ()
        return self.chunks[first : bisect_right(self._ends, end)]

    def locate(self, offset: int, length: int) -> Iterator[Span]:
        """The chunk parts that hold bytes [offset, offset + length), in order; nothing past the end of the file."""
        end = min(offset + length, self.size)
        position = self.position(offset)
        while offset < end:
            chunk = self.chunks[position]
            base = self._ends[position] - chunk.size
            stop = min(end, self._ends[position])
            yield Span(chunk, offset - base, stop - base)
            offset, position = stop, position + 1


def _chunk_ref(item: object) -> ChunkRef:
    if not isinstance(item, list) or len(item) != 2:
        msg = "manifest chunk is not a pair of id and size"
        raise MalformedError(msg)
    size = canonical.integer(item[1], "chunk size", 1, MAX_CHUNK_SIZE)
    return ChunkRef(ChunkId(from_hex(item[0], "chunk id")), size)
