from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from shardfs.tensors import Layout, detect
from shardfs.tensors.dtypes import BLOCKS
from shardfs.tensors.gguf import MAX_HEADER

Detect = Callable[..., Layout | None]


def ours(kind: Kind) -> str:
    return str(kind.name).lower().replace("_k", "_K")


# Types for intermediate results, which no file holds; the library has another size for one of them.
NEVER_STORED = {Kind.Q8_1, Kind.Q8_K}
# A release of the library may know more types than this one.
QUANTISED = sorted(kind for kind in {*gguf.GGML_QUANT_SIZES} - NEVER_STORED if ours(kind) in BLOCKS)


def written(path: Path, tensors: dict[str, Any], alignment: int = 0, **options: Any) -> bytes:
    """A file as the library writes it; a tensor is an array, or raw bytes with their type."""
    writer = gguf.GGUFWriter(path, "bert", **options)
    if alignment:
        writer.add_custom_alignment(alignment)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token {i}" for i in range(3000)])
    writer.add_token_scores([float(i) for i in range(3000)])
    writer.add_array("a.flags", [True, False])
    for name, value in tensors.items():
        data, kind = value if isinstance(value, tuple) else (value, None)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def described(name: str = "t", sizes: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(sizes)}QIQ", len(sizes), *sizes, kind, offset)


def by_hand(tensors: list[bytes], entries: list[bytes] = (), body: bytes = bytes(32), version: int = 3) -> bytes:  # type: ignore[assignment]
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(entries)) + b"".join(entries) + b"".join(tensors)
    return head + bytes(-len(head) % 32) + body


@pytest.mark.parametrize("alignment", [0, 8, 4096])
def test_real_file(detected: Detect, tmp_path: Path, alignment: int) -> None:
    rng = np.random.default_rng(1)
    tensors = {
        "a.weight": rng.standard_normal((30, 20)).astype(np.float32),
        "b.half": rng.standard_normal((3, 4, 5)).astype(np.float16),
        "c.double": rng.standard_normal(7),
        "d.int8": np.arange(5, dtype=np.int8),
        "e.int64": np.arange(5, dtype=np.int64),
    }
    data = written(tmp_path / "x.gguf", tensors, alignment)
    layout = detected(data)
    assert layout is not None
    assert (layout.format, layout.framework) == ("gguf", None)
    assert layout.tensors == layout.stretches
    assert layout.tensors is not None
    assert {t.name: (t.dtype, t.shape) for t in layout.tensors} == {
        name: (str(value.dtype), value.shape) for name, value in tensors.items()
    }
    assert all(data[t.start : t.end] == tensors[t.name].tobytes() for t in layout.tensors)
    assert layout.parameters == sum(value.size for value in tensors.values())


@pytest.mark.parametrize("kind", QUANTISED, ids=lambda kind: kind.name)
def test_quantised_types_have_the_names_and_sizes_of_ggml(detected: Detect, tmp_path: Path, kind: Kind) -> None:
    per_block, size = gguf.GGML_QUANT_SIZES[kind]
    assert BLOCKS[ours(kind)] == (per_block, size)
    raw = np.random.default_rng(kind).integers(0, 256, (3, 2 * size), dtype=np.uint8)
    data = written(tmp_path / "x.gguf", {"w": (raw, kind), "z": np.ones(4, np.float32)})
    layout = detected(data)
    assert layout is not None
    assert layout.tensors is not None
    first, last = layout.tensors
    assert (first.name, first.dtype, first.shape) == ("w", ours(kind), (3, 2 * per_block))
    assert data[first.start : first.end] == raw.tobytes()
    assert data[last.start : last.end] == np.ones(4, np.float32).tobytes()


def test_big_endian_elements_are_no_elements_to_a_codec(detected: Detect, tmp_path: Path) -> None:
    value: Any = np.arange(40, dtype=np.float32).reshape(5, 8)
    data = written(tmp_path / "x.gguf", {"w": value}, endianess=gguf.GGUFEndian.BIG)
    layout = detected(data)
    assert layout is not None
    assert layout.tensors is not None
    [tensor] = layout.tensors
    assert (tensor.dtype, tensor.shape) == ("float32", (5, 8))
    assert data[tensor.start : tensor.end] == value.astype(">f4").tobytes()
    assert [(s.name, s.dtype, s.shape) for s in layout.stretches] == [("w", None, (5, 8))]


def test_a_file_of_a_vocabulary_alone(detected: Detect, tmp_path: Path) -> None:
    layout = detected(written(tmp_path / "vocab.gguf", {}))
    assert layout == Layout("gguf", None, ())


def test_version_2(detected: Detect) -> None:
    layout = detected(by_hand([described()], version=2))
    assert layout is not None
    assert layout.parameters == 8


@pytest.mark.parametrize(
    "data",
    [by_hand([], version=1), by_hand([], version=9), by_hand([described(kind=77)]), by_hand([described(kind=4)])],
    ids=["version 1", "version 9", "type to come", "removed type"],
)
def test_what_is_not_known_yet_is_recognised(detected: Detect, data: bytes) -> None:
    assert detected(data) == Layout("gguf")


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def nested(depth: int) -> bytes:
    return entry("a", 9, struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 0))


BAD = {
    "header cut off": b"GGUF\x03\x00\x00\x00",
    "past the end": by_hand([described(sizes=(9,))]),
    "far past the end": by_hand([described(offset=1 << 62)]),
    "out of line": by_hand([described(offset=8, sizes=(4,))]),
    "overlap": by_hand([described("a"), described("b")]),
    "same name": by_hand([described(sizes=(4,)), described(sizes=(4,), offset=32)], body=bytes(64)),
    "half a block": by_hand([described(kind=2, sizes=(16, 2))]),
    "huge shape": by_hand([described(sizes=(1 << 40, 1 << 40))]),
    "huge dimensions": by_hand([text("t") + struct.pack("<I", 1 << 31)]),
    "huge name": by_hand([struct.pack("<Q", 1 << 62)]),
    "tensors that are not there": b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0) + bytes(100),
    "entries that are not there": b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60) + bytes(100),
    "strings that are not there": by_hand([], [entry("a", 9, struct.pack("<IQ", 8, 1 << 60))]),
    "many numbers": by_hand([], [entry("a", 9, struct.pack("<IQ", 10, 1 << 60))]),
    "huge string": by_hand([], [entry("a", 8, struct.pack("<Q", 1 << 63))]),
    "unknown value": by_hand([], [entry("a", 13, bytes(8))]),
    "deep nesting": by_hand([], [nested(1000)]),
    "alignment of zero": by_hand([described()], [entry("general.alignment", 4, bytes(4))]),
    "alignment of text": by_hand([described()], [entry("general.alignment", 8, text("32"))]),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_is_unknown(detected: Detect, name: str) -> None:
    assert detected(BAD[name]) is None


def test_arrays_in_arrays_are_skipped(detected: Detect) -> None:
    layout = detected(by_hand([described()], [nested(3), entry("b", 12, bytes(8))]))
    assert layout is not None
    assert layout.parameters == 8


@pytest.mark.parametrize(
    ("value", "unit"),
    [(entry("a", 9, struct.pack("<IQ", 8, 1 << 40)), bytes(8)), (b"", entry("", 0, b"\x01")), (nested(1), b"")],
)
def test_endless_metadata_ends(value: bytes, unit: bytes) -> None:
    """A file of any size: reads stay small, and together below the limit of a header."""
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60) + value
    reads = []

    def read_at(offset: int, size: int) -> bytes:
        reads.append(size)
        if offset < len(head):
            return (head + unit * 1000)[offset:][: len(head) + 1000 * len(unit) - offset][:size]
        phase = (offset - len(head)) % len(unit) if unit else 0
        return (unit * (size // len(unit) + 2) if unit else bytes(size + 8))[phase:][:size]

    tracemalloc.start()
    try:
        assert detect(read_at, 1 << 50) is None
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert max(reads) <= 1 << 16
    assert sum(reads) <= MAX_HEADER + (1 << 16)
