"""Whatever the bytes are, detection answers a layout whose ranges lie in the file, or None."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from shardfs.tensors import detect
from shardfs.tensors.picklescan import scan


def saved() -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(300.0), "b": {"c": torch.zeros(2, 3), "d": [torch.ones(7)]}}, buffer)
    return buffer.getvalue()


TORCH = saved()
SAFE = save({"a": torch.arange(300.0), "b": torch.zeros(2, 3)})
PICKLE = zipfile.ZipFile(io.BytesIO(TORCH)).read("archive/data.pkl")


def check(data: bytes) -> None:
    reads = []

    def read_at(offset: int, size: int) -> bytes:
        assert offset >= 0
        assert size >= 0
        reads.append(size)
        return data[offset : offset + size]

    layout = detect(read_at, len(data), b"x.onnx")
    assert all(size <= len(data) + 64 for size in reads)
    if layout is None:
        return
    position = 0
    for start, end in layout.extents:
        assert position <= start < end <= len(data)
        position = end
    for tensor in layout.tensors or ():
        assert 0 <= tensor.start <= tensor.end <= len(data)
    assert layout.parameters is None or layout.parameters >= 0


def damaged(data: bytes, seed: int, count: int) -> bytes:
    rng, out = random.Random(seed), bytearray(data)
    for _ in range(count):
        position = rng.randrange(len(out))
        match rng.randrange(4):
            case 0:
                out[position] = rng.randrange(256)
            case 1:
                del out[position : position + rng.randrange(1, 9)]
            case 2:
                out[position:position] = rng.randbytes(rng.randrange(1, 9))
            case _:
                size = rng.randrange(1, 9)
                out[position : position + size] = rng.choice([b"\xff", b"\x00", b"\x7f"]) * size
        if not out:
            return b""
    return bytes(out)


PREFIXES = [b"", b"PK\x03\x04", b"GGUF", struct.pack("<Q", 40) + b"{", b"\x93NUMPY"]


@given(st.sampled_from(PREFIXES), st.binary(max_size=400))
def test_any_bytes(prefix: bytes, data: bytes) -> None:
    check(prefix + data)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([TORCH, SAFE]), st.integers(0, 2**32), st.integers(1, 8))
def test_damaged_files(data: bytes, seed: int, count: int) -> None:
    check(damaged(data, seed, count))


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([TORCH, SAFE]), st.integers(0, 2**32), st.integers(1, 4))
def test_damaged_headers(data: bytes, seed: int, count: int) -> None:
    """The same where it hurts: the zip directory, the JSON header."""
    if data is TORCH:
        directory = data.find(b"PK\x01\x02")
        check(data[:directory] + damaged(data[directory:], seed, count))
    else:
        end = 8 + struct.unpack("<Q", data[:8])[0]
        check(damaged(data[:end], seed, count) + data[end:])


# pickletools says so about damaged text; only tests make it an error.
@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@settings(max_examples=400, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 6))
def test_damaged_pickles(seed: int, count: int) -> None:
    for view in scan(damaged(PICKLE, seed, count)) or ():
        assert view.offset >= 0
        assert view.span >= 0


@given(st.binary(max_size=300))
def test_any_pickle(data: bytes) -> None:
    scan(data)
    scan(b"\x80\x02}" + data + b".")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8", "F4", "?"]) | JSON,
        "shape": st.lists(st.integers(-2, 9), max_size=3) | JSON,
        "data_offsets": st.lists(st.integers(-4, 90), min_size=2, max_size=2) | JSON,
    }
)


@given(st.dictionaries(st.text(max_size=6), ENTRY | JSON, max_size=4), st.binary(max_size=90))
def test_any_json_header(header: dict[str, object], body: bytes) -> None:
    text = json.dumps(header).encode()
    check(struct.pack("<Q", len(text)) + text + body)
