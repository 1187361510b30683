"""Names and bytes for made-up programs: small files, larger ones, and weights that are trained."""

from __future__ import annotations

import json
import random
import struct

import numpy as np

from tests.soak.tree import Place

NAMES = ("a", "b", "model.safetensors", "sub", "ä ö", "line\nbreak", "caf\udce9", "A", "n" * 255)
DEPTH = 3


def path(chance: random.Random) -> Place:
    """A path of one to `DEPTH` names, short ones more often."""
    return tuple(chance.choices(NAMES, k=min(chance.randint(1, DEPTH), chance.randint(1, DEPTH))))


def some(chance: random.Random) -> bytes:
    """The content of a file: often small, now and then of several chunks; compressible or not."""
    [limit] = chance.choices((1, 100, 9000, 200_000, 3 << 20), (6, 25, 40, 25, 2))
    size = chance.randrange(limit)
    return chance.randbytes(size) if chance.random() < 0.7 else chance.randbytes(64) * (size // 64)


def weights(chance: random.Random) -> bytes:
    """A model file of one tensor of 128 to 512 KiB."""
    count = chance.randint(32, 128) << 10
    header = json.dumps({"w": {"dtype": "F32", "shape": [count], "data_offsets": [0, 4 * count]}}).encode()
    header += b" " * (-len(header) % 8)
    values = np.random.default_rng(chance.randrange(1 << 32)).normal(0, 0.05, count).astype(np.float32)
    return bytes(struct.pack("<Q", len(header)) + header + values.tobytes())


def trained(data: bytes, chance: random.Random) -> bytes:
    """The same weights after a step."""
    begin = 8 + struct.unpack_from("<Q", data)[0]
    values = np.frombuffer(data, np.float32, offset=begin)
    moves = np.random.default_rng(chance.randrange(1 << 32)).normal(0, 1e-6, len(values))
    with np.errstate(all="ignore"):  # other programs wrote anything into the file meanwhile
        return bytes(data[:begin] + (values + moves).astype(np.float32).tobytes())


def is_model(data: bytes) -> bool:
    """Whether `weights` or `trained` made it."""
    return data[8:14] == b'{"w": ' and len(data) % 8 == 0
