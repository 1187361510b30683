"""Like ZipLLM: equal tensors once, others as XOR with the version before, exponents apart from the rest, by zstd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from blake3 import blake3

from tests.benchmarks.schemes.parts import parts_of
from tests.benchmarks.schemes.result import Result, check_same

LEVEL = 3
_WORDS = {2: np.uint16, 4: np.uint32}


def planes(words: Any) -> list[bytes]:
    """Byte planes of words whose sign was moved behind the mantissa: the last plane is the exponent's 8 bits."""
    turned = (words << 1) | (words >> (8 * words.itemsize - 1))
    return [plane.tobytes() for plane in turned.view(np.uint8).reshape(-1, words.itemsize).T]


def unplaned(streams: Sequence[bytes]) -> Any:
    """Undo `planes`."""
    columns = [np.frombuffer(stream, np.uint8) for stream in streams]
    turned = np.stack(columns, axis=1).view(_WORDS[len(streams)]).ravel()
    return (turned >> 1) | (turned << (8 * len(streams) - 1))


def zstd_size(data: bytes) -> int:
    """Bytes of the data by zstd, or as they are."""
    frame = zstandard.ZstdCompressor(level=LEVEL).compress(data)
    check_same(zstandard.ZstdDecompressor().decompress(frame), data)
    return min(len(data), len(frame))


def encoded_size(tensor: bytes, base: bytes | None, float_bytes: int) -> int:
    """Bytes of a tensor; `base` is that of the version before, if it has one of this name and size."""
    if not float_bytes:
        return zstd_size(tensor)
    words = np.frombuffer(tensor, _WORDS[float_bytes])
    other = np.frombuffer(base, words.dtype) if base is not None else np.zeros_like(words)
    streams = planes(words ^ other)
    check_same((unplaned(streams) ^ other).tobytes(), tensor)
    return sum(zstd_size(stream) for stream in streams)


def store(files: Sequence[Path]) -> Result:
    """Store files one after the other."""
    result = Result()
    previous: dict[str, bytes] = {}
    for file in files:
        data = file.read_bytes()
        current = {}
        for part in parts_of(file):
            tensor = current[part.name] = data[part.start : part.end]
            result.references += 1
            if (digest := blake3(tensor).digest()) in result.encoded:
                continue
            base = previous.get(part.name)
            usable = base is not None and len(base) == len(tensor)
            result.add(digest, len(tensor), encoded_size(tensor, base if usable else None, part.float_bytes))
        previous = current
    return result
