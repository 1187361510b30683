from __future__ import annotations

import struct
from collections.abc import Callable

import onnx
import pytest

from shardfs.tensors import Layout, detect

Detect = Callable[..., Layout | None]


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"\x89HDF\r\n\x1a\n", b"model.h5", Layout("hdf5")),
        (b"", b"model.onnx", None),
        (b"PK", b"x.zip", None),
        (b"PK\x03\x04", b"x.zip", None),
        (b"hello world, this is text", b"a.safetensors", None),
    ],
)
def test_magic_bytes(detected: Detect, data: bytes, name: bytes, expected: Layout | None) -> None:
    assert detected(data, name) == expected


def test_a_count_of_tensors_that_looks_like_json(detected: Detect) -> None:
    """A GGUF file of 123 tensors has a `{` where a safetensors header begins."""
    entries = [b"\x01\0\0\0\0\0\0\0" + bytes([i]) + struct.pack("<IQIQ", 1, 8, 0, 32 * i) for i in range(123)]
    head = b"GGUF" + struct.pack("<IQQ", 3, 123, 0) + b"".join(entries)
    data = head + bytes(-len(head) % 32 + 123 * 32)

    def read_at(offset: int, size: int) -> bytes:
        return data[offset : offset + size].ljust(size, b"\0")

    layout = detect(read_at, 1 << 40)
    assert layout is not None
    assert (layout.format, layout.parameters) == ("gguf", 123 * 8)


REAL: dict[bytes, bytes] = {
    b"x.onnx": onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])).SerializeToString(),
    b"x.gguf": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
    b"x.safetensors": struct.pack("<Q", 8) + b"{}      ",
}


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("call", [0, 1])
def test_errors_of_the_caller_pass_through(name: bytes, call: int) -> None:
    calls: list[int] = []

    def read_at(offset: int, size: int) -> bytes:
        if len(calls) == call:
            raise ValueError("closed")
        calls.append(offset)
        return REAL[name][offset : offset + size]

    with pytest.raises(ValueError, match="closed"):
        detect(read_at, len(REAL[name]), name)
