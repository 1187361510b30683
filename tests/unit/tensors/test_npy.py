from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from shardfs.tensors import Layout

Detect = Callable[..., Layout | None]


def saved(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def by_hand(header: str | bytes, body: bytes = bytes(24), version: bytes = b"\x01\x00") -> bytes:
    text = header.encode() if isinstance(header, str) else header
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + body


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8", "c16"])
def test_real_file(detected: Detect, dtype: str) -> None:
    array: Any = np.arange(12).reshape(3, 4).astype(dtype)
    data = saved(array)
    layout = detected(data)
    assert layout is not None
    assert (layout.format, layout.framework, layout.parameters) == ("npy", "numpy", 12)
    assert layout.tensors == layout.stretches
    assert layout.tensors is not None
    [tensor] = layout.tensors
    assert (tensor.name, tensor.dtype, tensor.shape) == ("", str(array.dtype), (3, 4))
    assert data[tensor.start : tensor.end] == array.tobytes()


@pytest.mark.parametrize("array", [np.float64(3.5), np.zeros((0, 4)), np.asfortranarray(np.ones((5, 6)))])
def test_scalars_empty_and_columns_first(detected: Detect, array: Any) -> None:
    data = saved(array)
    layout = detected(data)
    assert layout is not None
    assert layout.tensors is not None
    [tensor] = layout.tensors
    assert tensor.shape == array.shape
    assert data[tensor.start :] == array.tobytes(order="A")
    assert len(layout.stretches) == (1 if array.size else 0)


def test_big_endian_elements_are_no_elements_to_a_codec(detected: Detect) -> None:
    layout = detected(saved(np.arange(6, dtype=">f4")))
    assert layout is not None
    assert [(t.dtype, t.shape) for t in layout.tensors or ()] == [("float32", (6,))]
    assert [(s.dtype, s.shape) for s in layout.stretches] == [(None, (6,))]


@pytest.mark.parametrize(
    "array",
    [
        np.array(["a", "bcd"]),
        np.array([b"a", b"bcd"]),
        np.array(["2026-01-01"], dtype="M8[ns]"),
        np.zeros(3, dtype="V2"),
        np.ones(3, dtype=np.longdouble),
    ],
    ids=["text", "bytes", "dates", "void", "long double"],
)
def test_elements_that_are_no_numbers_are_bytes(detected: Detect, array: Any) -> None:
    data = saved(array)
    layout = detected(data)
    assert layout is not None
    assert layout.tensors == ()
    [stretch] = layout.stretches
    assert (stretch.dtype, stretch.shape) == (None, (array.nbytes,))
    assert data[stretch.start : stretch.end] == array.tobytes()


@pytest.mark.parametrize(
    "array", [np.array([{"a": 1}], dtype=object), np.zeros(3, dtype=[("x", "f4"), ("y", [("z", "i2", (2,))])])]
)
def test_objects_and_records_are_recognised(detected: Detect, array: Any) -> None:
    assert detected(saved(array, allow_pickle=True)) == Layout("npy", "numpy", ())


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00", b"\x03\x00"])
@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }  \n",
        '{"shape":(2,3),"fortran_order":False,"descr":"<f4"}',
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2L, 3L,)}",
    ],
)
def test_headers_of_other_writers(detected: Detect, header: str, version: bytes) -> None:
    layout = detected(by_hand(header, version=version))
    assert layout is not None
    assert [(t.dtype, t.shape) for t in layout.tensors or ()] == [("float32", (2, 3))]


def test_a_header_longer_than_usual(detected: Detect) -> None:
    data = by_hand("{'descr': '<f4', 'fortran_order': False, 'shape': (6,), }" + " " * 5000)
    layout = detected(data)
    assert layout is not None
    assert layout.extents == ((len(data) - 24, len(data)),)


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}"
BAD = {
    "body cut off": by_hand(GOOD, bytes(23)),
    "header cut off": by_hand(GOOD)[:40],
    "magic alone": b"\x93NUMPY",
    "version 4": by_hand(GOOD, version=b"\x04\x00"),
    "header too long": by_hand(GOOD + " " * 10_000),
    "no dict": by_hand("[]"),
    "no shape": by_hand("{'descr': '<f4', 'fortran_order': False}"),
    "a call": by_hand("{'descr': '<f4', 'fortran_order': exit(), 'shape': (6,)}"),
    "an expression": by_hand("{'descr': '<f4', 'fortran_order': False, 'shape': (2*3,)}"),
    "negative": by_hand(GOOD.replace("6", "-6")),
    "shape of commas": by_hand(GOOD.replace("6", ",,")),
    "no numbers": by_hand(GOOD.replace("6", "L")),
    "huge shape": by_hand(GOOD.replace("6", "9999999999, 9999999999, 9999999999")),
    "many dimensions": by_hand(GOOD.replace("6", "1," * 70)),
    "something behind": by_hand(GOOD + "x"),
    "nested": by_hand("{'descr': " + "(" * 9000),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_is_unknown(detected: Detect, name: str) -> None:
    assert detected(BAD[name]) is None


def test_npz(detected: Detect) -> None:
    arrays = {"a": np.arange(100.0), "b/w": np.ones((5, 10), np.float16), "label": np.array(["x"])}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    data = buffer.getvalue()
    layout = detected(data)
    assert layout is not None
    assert (layout.format, layout.framework, layout.parameters) == ("npz", "numpy", 150)
    assert {t.name: (t.dtype, t.shape) for t in layout.tensors or ()} == {
        "a": ("float64", (100,)),
        "b/w": ("float16", (5, 10)),
    }
    assert [s.name for s in layout.stretches] == ["a", "b/w", "label"]
    assert all(data[s.start : s.end] == arrays[s.name].tobytes() for s in layout.stretches)


@pytest.mark.parametrize("content", [b"no array", b"", saved(np.arange(9.0))[:-8]])
def test_members_that_are_no_arrays_make_an_unknown_file(detected: Detect, content: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("good.npy", saved(np.arange(9.0)))
        archive.writestr("bad.npy", content)
    assert detected(buffer.getvalue()) is None
