"""Like Xet: content-defined chunks of about 64 KiB, each by the smallest of plain, LZ4 and byte-grouped LZ4."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lz4.frame
import numpy as np
from blake3 import blake3
from pyfastcdc import FastCDC

from tests.benchmarks.schemes.result import Result, check_same

KIB = 1024
MIN_SIZE, AVG_SIZE, MAX_SIZE = 8 * KIB, 64 * KIB, 128 * KIB
GROUP = 4  # bytes of a value


def grouped(chunk: bytes) -> bytes:
    """The first bytes of all values, then the second ones, and so on; a rest follows as it is."""
    whole = len(chunk) // GROUP * GROUP
    return bytes(np.frombuffer(chunk[:whole], np.uint8).reshape(-1, GROUP).T.tobytes()) + chunk[whole:]


def ungrouped(data: bytes) -> bytes:
    """Undo `grouped`."""
    whole = len(data) // GROUP * GROUP
    return bytes(np.frombuffer(data[:whole], np.uint8).reshape(GROUP, -1).T.tobytes()) + data[whole:]


def encoded_size(chunk: bytes) -> int:
    """Bytes of the smallest of the three encodings."""
    plain, by_group = lz4.frame.compress(chunk), lz4.frame.compress(grouped(chunk))
    check_same(lz4.frame.decompress(plain), chunk)
    check_same(ungrouped(lz4.frame.decompress(by_group)), chunk)
    return min(len(chunk), len(plain), len(by_group))


def store(files: Sequence[Path]) -> Result:
    """Store files one after the other."""
    result = Result()
    cutter = FastCDC(AVG_SIZE, min_size=MIN_SIZE, max_size=MAX_SIZE, normalized_chunking=0)
    for file in files:
        data, start = file.read_bytes(), 0
        for cut in cutter.cut_buf(data):
            chunk = data[start : start + cut.length]
            start += cut.length
            result.references += 1
            if (digest := blake3(chunk).digest()) not in result.encoded:
                result.add(digest, len(chunk), encoded_size(chunk))
    return result
