from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors.torch import save

from shardfs.tensors import Layout
from shardfs.tensors.safetensors import MAX_HEADER

Detect = Callable[..., Layout | None]


def packed(header: Any, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def entry(dtype: str = "F32", shape: Any = (2,), offsets: Any = (0, 8)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def test_real_file(detected: Detect) -> None:
    tensors = {
        "a.weight": torch.randn(300, 100),
        "b.bias": torch.arange(7, dtype=torch.int64),
        "c": torch.randn(5, 3).to(torch.bfloat16),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
        "f8": torch.zeros(6).to(torch.float8_e4m3fn),
        "flag": torch.tensor([True, False]),
    }
    data = save(tensors, metadata={"format": "pt"})
    layout = detected(data)
    assert layout is not None
    assert (layout.format, layout.framework) == ("safetensors", "pytorch")
    assert layout.tensors is not None
    assert {t.name: t.shape for t in layout.tensors} == {k: tuple(v.shape) for k, v in tensors.items()}
    for tensor in layout.tensors:
        value = tensors[tensor.name]
        assert tensor.dtype == str(value.dtype).removeprefix("torch.")
        flat = value.contiguous().reshape(-1).view(torch.uint8) if value.numel() else torch.zeros(0)
        assert data[tensor.start : tensor.end] == bytes(flat.tolist())
    assert layout.parameters == sum(v.numel() for v in tensors.values())
    assert layout.extents[-1][1] == len(data)


def test_no_tensors(detected: Detect) -> None:
    layout = detected(packed({}))
    assert layout is not None
    assert (layout.tensors, layout.parameters, layout.framework) == ((), 0, None)


@pytest.mark.parametrize("padding", [b" ", b"       "])
def test_padded_header(detected: Detect, padding: bytes) -> None:
    layout = detected(packed(json.dumps({"a": entry()}).encode() + padding, bytes(8)))
    assert layout is not None
    assert layout.parameters == 2


def test_spaces_anywhere_between_members(detected: Detect) -> None:
    text = json.dumps({"a": entry(), "b": entry(offsets=(8, 16))}, indent=2).encode()
    layout = detected(packed(text, bytes(16)))
    assert layout is not None
    assert layout.parameters == 4


BAD = {
    "hole": ({"a": entry(), "b": entry(offsets=(9, 17))}, bytes(17)),
    "overlap": ({"a": entry(), "b": entry(offsets=(4, 12))}, bytes(12)),
    "past the end": ({"a": entry()}, bytes(7)),
    "bytes behind": ({"a": entry()}, bytes(9)),
    "negative": ({"a": entry(offsets=(-8, 0))}, b""),
    "reversed": ({"a": entry(offsets=(8, 0))}, bytes(8)),
    "wrong size": ({"a": entry(shape=(3,))}, bytes(8)),
    "negative shape": ({"a": entry(shape=(-1, -2))}, bytes(8)),
    "huge shape": ({"a": entry(shape=(2**62, 2**62))}, bytes(8)),
    "boolean shape": ({"a": entry(shape=(True, 2))}, bytes(8)),
    "float offset": ({"a": entry(offsets=(0, 8.0))}, bytes(8)),
    "unknown dtype": ({"a": entry(dtype="F33")}, bytes(8)),
    "list for dtype": ({"a": {**entry(), "dtype": []}}, bytes(8)),
    "missing member": ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)),
    "unknown member": ({"a": {**entry(), "x": 1}}, bytes(8)),
    "no object": ({"a": 3}, b""),
    "metadata of numbers": ({"__metadata__": {"a": 1}}, b""),
    "duplicate": (b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(8)),
    "array": (b"[]", b""),
    "not UTF-8": (b'{"\xff":1}', b""),
    "nested": (b'{"a":' + b"[" * 100_000, b""),
    "behind the end": (b"{} x", b""),
    "no comma": (b'{"a":1 "b":2}', b""),
    "only a brace": (b"{ ", b""),
    "name of a number": (b"{1:2}", b""),
    "no colon": (b'{"a" 1}', b""),
    "endless number": (b'{"a":' + b"9" * 7000 + b"}", b""),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_is_unknown(detected: Detect, name: str) -> None:
    assert detected(packed(*BAD[name])) is None


def test_header_length_past_the_end(detected: Detect) -> None:
    assert detected(struct.pack("<Q", 1 << 63) + b"{}" + bytes(100)) is None


def test_truncated_while_reading(detected: Detect) -> None:
    assert detected(struct.pack("<Q", 5000) + b"{" + b" " * 100) is None


@pytest.mark.parametrize("piece", [b"[],", b"{},", b'"",', b"1,"])
def test_hostile_header_costs_little_memory(detected: Detect, piece: bytes) -> None:
    size = 4 << 20
    data = packed(b'{"a":[' + piece * (size // len(piece)) + b"0]}")
    tracemalloc.start()
    try:
        assert detected(data) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * size
    finally:
        tracemalloc.stop()


def test_header_past_the_limit_is_not_read() -> None:
    from shardfs.tensors import detect

    reads = []

    def read_at(offset: int, size: int) -> bytes:
        reads.append(size)
        return (struct.pack("<Q", MAX_HEADER + 1) + b"{" + bytes(7))[offset : offset + size]

    assert detect(read_at, 1 << 40) is None
    assert sum(reads) < 100
