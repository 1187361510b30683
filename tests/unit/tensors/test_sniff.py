from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest

from shardfs.tensors import Layout

Detect = Callable[..., Layout | None]


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"GGUF\x03\x00\x00\x00", b"", Layout("gguf")),
        (b"\x89HDF\r\n\x1a\n", b"model.h5", Layout("hdf5")),
        (b"\x08\x07\x12\x07pytorch", b"model.onnx", Layout("onnx")),
        (b"\x08\x07\x12\x07pytorch", b"model.bin", None),
        (b"", b"model.onnx", None),
        (b"PK", b"x.zip", None),
        (b"PK\x03\x04", b"x.zip", None),
        (b"hello world, this is text", b"a.safetensors", None),
    ],
)
def test_magic_bytes(detected: Detect, data: bytes, name: bytes, expected: Layout | None) -> None:
    assert detected(data, name) == expected


def test_npy(detected: Detect) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    assert detected(buffer.getvalue()) == Layout("npy", "numpy")
