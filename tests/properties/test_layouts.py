"""Whatever the bytes are, detection answers a layout whose ranges lie in the file, or None."""

from __future__ import annotations

import io
import json
import math
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save

from shardfs.tensors import Layout, detect, external_layout
from shardfs.tensors.dtypes import stored_size
from shardfs.tensors.picklescan import scan


def saved(*, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    value = {"a": torch.arange(300.0), "b": {"c": torch.zeros(2, 3), "d": [torch.ones(7)]}}
    torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def arrays() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.arange(300.0), b=np.zeros((2, 3), np.float16), c=np.array(["x"]))
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.arange(300.0).reshape(3, 100))
    return buffer.getvalue()


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def ggml() -> bytes:
    entries = [
        text("general.alignment") + struct.pack("<II", 4, 32),
        text("words") + struct.pack("<IIQ", 9, 8, 3) + text("a") + text("bc") + text(""),
        text("numbers") + struct.pack("<IIQ", 9, 5, 4) + bytes(16),
        text("name") + struct.pack("<I", 8) + text("x"),
    ]
    tensors = [
        text("a") + struct.pack("<I2QIQ", 2, 64, 3, 2, 0),
        text("b") + struct.pack("<I1QIQ", 1, 10, 0, 128),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(entries)) + b"".join(entries + tensors)
    return head + bytes(-len(head) % 32) + bytes(168)


def model() -> bytes:
    tensors = [numpy_helper.from_array(np.arange(9.0), "a"), helper.make_tensor("b", TensorProto.INT32, [2], [1, 2])]
    for name in ("c", "d"):
        tensor = TensorProto(name=name, data_type=1, dims=[4], data_location=TensorProto.EXTERNAL)
        for key, value in {"location": "x", "offset": "16", "length": "16"}.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    inner = helper.make_graph([], "i", [], [], initializer=[numpy_helper.from_array(np.ones(3), "e")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    data: bytes = helper.make_model(helper.make_graph([node], "g", [], [], initializer=tensors)).SerializeToString()
    return data


TORCH = saved()
SAFE = save({"a": torch.arange(300.0), "b": torch.zeros(2, 3)})
GGUF = ggml()
REAL = {
    "torch-zip": TORCH,
    "torch-legacy": saved(legacy=True),
    "safetensors": SAFE,
    "npz": arrays(),
    "npy": array(),
    "gguf": GGUF,
    "onnx": model(),
}
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
    check_ranges(layout, len(data))
    other = external_layout(layout, b"x", 50)
    if other is not None:
        assert other.tensors
        check_ranges(other, 50)


def check_ranges(layout: Layout, size: int) -> None:
    position = 0
    for stretch in layout.stretches:
        assert position <= stretch.start < stretch.end <= size
        position = stretch.end
        if stretch.dtype is not None:
            # Packed elements fill their last byte with zeros.
            elements = math.prod(stretch.shape)
            assert stretch.end - stretch.start in {stored_size(stretch.dtype, elements + more) for more in range(4)}
    assert layout.extents == tuple((s.start, s.end) for s in layout.stretches)
    for tensor in layout.tensors or ():
        assert 0 <= tensor.start <= tensor.end <= size
    assert layout.parameters is None or layout.parameters >= 0


def test_undamaged_files_are_known() -> None:
    for kind, data in REAL.items():
        layout = detect(lambda offset, size, data=data: data[offset : offset + size], len(data), b"x.onnx")  # type: ignore[misc]
        assert layout is not None
        assert layout.format == kind
        assert layout.tensors


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


PREFIXES = [b"", b"PK\x03\x04", b"GGUF", struct.pack("<Q", 40) + b"{", b"\x93NUMPY\x01\0\x80\0{", GGUF[:40], b"\x3a"]


@given(st.sampled_from(PREFIXES), st.binary(max_size=400))
def test_any_bytes(prefix: bytes, data: bytes) -> None:
    check(prefix + data)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(REAL)), st.integers(0, 2**32), st.integers(1, 8))
def test_damaged_files(kind: str, seed: int, count: int) -> None:
    check(damaged(REAL[kind], seed, count))


def header_of(kind: str) -> tuple[int, int]:
    """Where it hurts most: the zip directory, the JSON header, what describes the tensors."""
    data = REAL[kind]
    match kind:
        case "torch-zip" | "npz":
            return data.find(b"PK\x01\x02"), len(data)
        case "safetensors":
            return 0, 8 + struct.unpack("<Q", data[:8])[0]
        case "gguf":
            return 8, len(data) - 168
        case "npy":
            return 6, 128
        case "torch-legacy":
            return 15, data.rfind(b".", 0, -1240) + 1
        case _:
            return 0, len(data)


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@settings(max_examples=800, deadline=None)
@given(st.sampled_from(sorted(REAL)), st.integers(0, 2**32), st.integers(1, 4))
def test_damaged_headers(kind: str, seed: int, count: int) -> None:
    data, (start, end) = REAL[kind], header_of(kind)
    check(data[:start] + damaged(data[start:end], seed, count) + data[end:])


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
