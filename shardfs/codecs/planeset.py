"""Planes as they lie in a payload: each raw, a zstd frame, or sparse. Spec: docs/design/format/codecs.md."""

from __future__ import annotations

import struct
import threading
from collections.abc import Sequence
from typing import Final

import zstandard

from shardfs.codecs import kernels
from shardfs.codecs.base import Buffer
from shardfs.errors import MalformedError
from shardfs.formats.zstdframe import decompress_exact

RAW: Final = 0
FRAME: Final = 1
SPARSE: Final = 2
_HEAD: Final = struct.Struct("<BI")  # kind, stored size
_COUNT: Final = struct.Struct("<I")

_KEEP_RAW: Final = 0.99  # a plane that does not shrink below this part of itself is faster to copy
_MATCHES_PAY: Final = 0.93  # zstd with matches decodes at half the speed
_EVEN: Final = 0.95  # where Huffman codes leave more than this all bytes are about as frequent
_EVEN_SQUARES: Final = 1.05
_EACH: Final = 16  # of so many bytes one is looked at: 10 us for a plane of 256 KiB
_ENOUGH: Final = 1024
_SPARSE_PAYS: Final = 0.97
_MANY_OTHERS: Final = 0.8  # where more of a plane than this is not zero, a bitmap never paid
_SAMPLE: Final = 8 * 1024
_SAMPLES: Final = 3
_local = threading.local()


class _Compressors:
    """One of each kind for this thread: contexts are not thread-safe.

    In planes there is hardly anything to match. With matches of seven bytes or more and a table of 64 places every
    byte goes to the Huffman coder, at three times the speed of level 1 and in fewer bytes; any decoder reads it. The
    window bounds the block, and each block has a code of its own: values in their order want 64 KiB, values sorted
    by the expected size of their difference change along the plane and want 16 KiB.
    """

    def __init__(self) -> None:
        self.matching = zstandard.ZstdCompressor(level=1)
        self.plain, self.sorted = (
            zstandard.ZstdCompressor(
                compression_params=zstandard.ZstdCompressionParameters(
                    strategy=zstandard.STRATEGY_FAST,
                    min_match=7,
                    hash_log=6,
                    chain_log=6,
                    search_log=1,
                    target_length=0,
                    window_log=window_log,
                )
            )
            for window_log in (16, 14)
        )


def pack(planes: Sequence[memoryview], *, grouped: bool) -> list[Buffer]:
    """The parts of a payload that hold these planes, of values in their order or in groups.

    Raw ones are the memory that was given.
    """
    return _parts([_smallest(plane, grouped=grouped) for plane in planes])


def estimate(planes: Sequence[memoryview], *, grouped: bool) -> int:
    """About how many bytes `pack` would make of planes like these; quicker."""
    huffman = _huffman(grouped=grouped)
    return sum(min(len(plane), len(huffman.compress(plane))) for plane in planes)


def unpack(payload: memoryview, sizes: Sequence[int], tail: int) -> tuple[list[Buffer], memoryview]:
    """Planes of these sizes, and the `tail` bytes after them.

    Raises:
        MalformedError: other lengths, an unknown kind of plane, a damaged frame.
    """
    bodies, rest = _cut(payload, len(sizes), tail)
    planes = [
        _unthinned(body, size) if kind == SPARSE else _plain(kind, body, size)
        for (kind, body), size in zip(bodies, sizes, strict=True)
    ]
    return planes, rest


def _parts(bodies: Sequence[tuple[int, Buffer]]) -> list[Buffer]:
    return [b"".join(_HEAD.pack(kind, len(body)) for kind, body in bodies), *(body for _, body in bodies)]


def _cut(payload: memoryview, number: int, tail: int) -> tuple[list[tuple[int, memoryview]], memoryview]:
    start = number * _HEAD.size
    heads = [] if len(payload) < start else list(_HEAD.iter_unpack(payload[:start]))
    if not heads or start + sum(size for _, size in heads) + tail != len(payload):
        msg = f"{number} planes and {tail} bytes do not make a payload of {len(payload)} bytes"
        raise MalformedError(msg)
    bodies = []
    for kind, size in heads:
        bodies.append((kind, payload[start : start + size]))
        start += size
    return bodies, payload[start:]


def _plain(kind: int, body: memoryview, size: int) -> Buffer:
    if kind == FRAME:
        return decompress_exact(body, size)
    if kind == RAW and len(body) == size:
        return body
    msg = f"plane of kind {kind} with {len(body)} bytes does not hold {size}"
    raise MalformedError(msg)


def _unthinned(body: memoryview, size: int) -> Buffer:
    count = _COUNT.unpack(body[: _COUNT.size])[0] if len(body) >= _COUNT.size else size + 1
    if count <= size and size:
        bodies, _ = _cut(body[_COUNT.size :], 2, 0)
        sizes = ((size + 7) // 8, count)
        bitmap, others = (_plain(kind, part, length) for (kind, part), length in zip(bodies, sizes, strict=True))
        if (plane := kernels.active.thicken(bitmap, others, size)) is not None:
            return plane
    msg = f"sparse plane does not hold {size} bytes"
    raise MalformedError(msg)


def _smallest(plane: memoryview, *, grouped: bool) -> tuple[int, Buffer]:
    """How a plane is stored, by the look of a sample of it."""
    if not len(plane):
        return RAW, plane
    huffman, matching = _huffman(grouped=grouped), _compressors().matching
    sample = _sample(plane)
    even = _is_even(plane)
    usual = len(sample) if even else len(huffman.compress(sample))
    if usual >= _EVEN * len(sample):
        # Rows that repeat leave no trace in a histogram, and sorting tears them apart.
        rows = sample[:_SAMPLE]
        if not grouped and len(matching.compress(rows)) < _MATCHES_PAY * len(rows):
            return _coded(plane, matching)
        return (RAW, plane) if even else _coded(plane, huffman)
    bitmap, others = kernels.active.thin(sample)
    thin = len(sample)
    if len(others) < _MANY_OTHERS * thin:
        thin = len(huffman.compress(bitmap)) + len(huffman.compress(others))
    if len(matching.compress(sample)) < min(_MATCHES_PAY * usual, thin):
        return _coded(plane, matching)
    if thin < _SPARSE_PAYS * usual:
        return SPARSE, b"".join(_thinned(plane, huffman))
    return _coded(plane, huffman)


def _is_even(plane: memoryview) -> bool:
    """Whether all bytes occur about equally often, so that Huffman codes save less than half a per cent.

    With n bytes drawn evenly from 256 the squares of their counts sum up to n * n / 256 + n, give or take 1.2 % for
    1 024 of them and 0.1 % for 16 384.
    """
    drawn = (len(plane) + _EACH - 1) // _EACH
    if drawn < _ENOUGH:
        return False
    return kernels.active.squares(plane, _EACH) < _EVEN_SQUARES * (drawn * drawn / 256 + drawn)


def _coded(plane: memoryview, compressor: zstandard.ZstdCompressor) -> tuple[int, Buffer]:
    body = compressor.compress(plane)
    return (FRAME, body) if len(body) < _KEEP_RAW * len(plane) else (RAW, plane)


def _thinned(plane: Buffer, compressor: zstandard.ZstdCompressor) -> list[Buffer]:
    """The parts of the body of a sparse plane."""
    bitmap, others = kernels.active.thin(plane)
    return [_COUNT.pack(len(others)), *_parts([_coded(bitmap, compressor), _coded(others, compressor)])]


def _sample(plane: memoryview) -> Buffer:
    """Blocks from a sixth, a half and five sixths of a plane: the ends of sorted values say little."""
    if len(plane) <= _SAMPLES * _SAMPLE:
        return plane
    starts = ((len(plane) - _SAMPLE) * (2 * i + 1) // (2 * _SAMPLES) for i in range(_SAMPLES))
    return b"".join(plane[start : start + _SAMPLE] for start in starts)


def _compressors() -> _Compressors:
    found: _Compressors | None = getattr(_local, "compressors", None)
    if found is None:
        found = _local.compressors = _Compressors()
    return found


def _huffman(*, grouped: bool) -> zstandard.ZstdCompressor:
    return _compressors().sorted if grouped else _compressors().plain
