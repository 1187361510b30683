"""Bounded zstd decompression, shared by packs and codecs."""

from __future__ import annotations

import threading

import zstandard

from shardfs.errors import MalformedError

_local = threading.local()


def decompress_exact(
    frame: bytes | memoryview, raw_size: int, dictionary: zstandard.ZstdCompressionDict | None = None
) -> bytes:
    """The plaintext of one zstd frame that declares exactly `raw_size` bytes, made with that dictionary if any.

    The declared size is compared before anything is allocated, and libzstd never writes past it: no frame can
    produce more than the caller expects.

    Raises:
        MalformedError: not exactly one frame, another declared size, or damaged.
    """
    try:
        if zstandard.frame_content_size(frame) != raw_size:
            msg = f"zstd frame does not declare {raw_size} bytes"
            raise MalformedError(msg)
        decompressor = _decompressor() if dictionary is None else zstandard.ZstdDecompressor(dict_data=dictionary)
        data = bytes(decompressor.decompress(frame, max_output_size=raw_size, allow_extra_data=False))
    except zstandard.ZstdError as error:
        msg = f"zstd frame is damaged: {error}"
        raise MalformedError(msg) from error
    if len(data) != raw_size:
        msg = f"zstd frame holds {len(data)} bytes instead of {raw_size}"
        raise MalformedError(msg)
    return data


def _decompressor() -> zstandard.ZstdDecompressor:
    """One decompressor per thread: contexts are not thread-safe and cost about 30 us to make."""
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor()
    return found
