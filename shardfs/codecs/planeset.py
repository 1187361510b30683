"""Planes as they lie in a payload: each raw or one zstd frame. Spec: docs/design/format/codecs.md, "Planes"."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Final

import zstandard

from shardfs.codecs.base import Buffer
from shardfs.errors import MalformedError
from shardfs.formats.zstdframe import decompress_exact

RAW: Final = 0
FRAME: Final = 1
_HEAD: Final = struct.Struct("<BI")  # kind, stored size

_KEEP_RAW: Final = 0.99  # a plane that does not shrink below this part of itself is faster to copy
_MATCHES_PAY: Final = 0.93  # zstd with matches decodes at half the speed
_SAMPLE: Final = 16 * 1024
_SAMPLES: Final = 3
# Matches of seven bytes or more and a table of 64 places: in planes there are none to find, so every byte goes to
# the Huffman coder, at three times the speed of level 1 and in fewer bytes. Any zstd decoder reads it.
_HUFFMAN_ONLY: Final = zstandard.ZstdCompressionParameters(
    strategy=zstandard.STRATEGY_FAST,
    min_match=7,
    hash_log=6,
    chain_log=6,
    search_log=1,
    target_length=0,
    window_log=22,
)
_LEVEL: Final = 1
_local = threading.local()


def pack(planes: Sequence[memoryview]) -> list[Buffer]:
    """The parts of a payload that hold these planes; raw ones are the memory that was given."""
    bodies = [_smaller(plane) for plane in planes]
    heads = b"".join(_HEAD.pack(kind, len(body)) for kind, body in bodies)
    return [heads, *(body for _, body in bodies)]


def unpack(payload: memoryview, width: int, count: int, tail: int) -> tuple[list[Buffer], memoryview]:
    """`width` planes of `count` bytes, and the `tail` bytes after them.

    Raises:
        MalformedError: other lengths, an unknown kind of plane, a damaged frame.
    """
    start = width * _HEAD.size
    if len(payload) < start:
        msg = "planes end in their heads"
        raise MalformedError(msg)
    heads = list(_HEAD.iter_unpack(payload[:start]))
    if start + sum(size for _, size in heads) + tail != len(payload):
        msg = f"planes do not add up to a payload of {len(payload)} bytes"
        raise MalformedError(msg)
    planes: list[Buffer] = []
    for kind, size in heads:
        body = payload[start : start + size]
        start += size
        if kind == FRAME:
            planes.append(decompress_exact(body, count))
        elif kind == RAW and size == count:
            planes.append(body)
        else:
            msg = f"plane of kind {kind} and {size} bytes, expected {count}"
            raise MalformedError(msg)
    return planes, payload[start:]


def _smaller(plane: memoryview) -> tuple[int, Buffer]:
    huffman, matching = _compressors()
    chosen = huffman
    if len(plane) > _SAMPLES * _SAMPLE:
        middle, end = len(plane) // 2, len(plane) - _SAMPLE
        sample = b"".join(plane[start : start + _SAMPLE] for start in (0, middle, end))
        if len(matching.compress(sample)) < _MATCHES_PAY * len(huffman.compress(sample)):
            chosen = matching
    body = chosen.compress(plane)
    return (FRAME, body) if len(body) < _KEEP_RAW * len(plane) else (RAW, plane)


def _compressors() -> tuple[zstandard.ZstdCompressor, zstandard.ZstdCompressor]:
    """Huffman-only and with matches, of this thread: contexts are not thread-safe."""
    found: tuple[zstandard.ZstdCompressor, zstandard.ZstdCompressor] | None = getattr(_local, "compressors", None)
    if found is None:
        huffman = zstandard.ZstdCompressor(compression_params=_HUFFMAN_ONLY)
        found = _local.compressors = (huffman, zstandard.ZstdCompressor(level=_LEVEL))
    return found
