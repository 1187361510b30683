"""ZipNN: each file by itself, through the published library."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from blake3 import blake3
from zipnn import ZipNN

from tests.benchmarks.schemes.parts import parts_of
from tests.benchmarks.schemes.result import Result, check_same

_NAMES = {2: "bfloat16", 4: "float32"}


def store(files: Sequence[Path]) -> Result:
    """Store files one after the other, with one thread."""
    result = Result()
    for file in files:
        largest = max(parts_of(file), key=lambda part: part.end - part.start)
        codec = ZipNN(input_format="byte", bytearray_dtype=_NAMES[largest.float_bytes], threads=1)
        data = file.read_bytes()
        work = bytearray(data)  # the library works in place
        start = time.perf_counter()
        frame = codec.compress(work)
        result.encode_seconds += time.perf_counter() - start
        check_same(bytes(codec.decompress(frame)), data)
        result.references += 1
        result.add(blake3(data).digest(), len(data), len(frame))
    return result
