from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from shardfs.tensors import ExternalTensor, Layout, external_layout

Detect = Callable[..., Layout | None]
NAME = b"model.onnx"


def graph_of(tensors: Iterable[TensorProto], nodes: Iterable[Any] = (), **options: Any) -> Any:
    return helper.make_graph(list(nodes), "g", [], [], initializer=list(tensors), **options)


def model_of(graph: Any, **options: Any) -> bytes:
    data: bytes = helper.make_model(graph, **options).SerializeToString()
    return data


def array(name: str, *shape: int, dtype: str = "float32") -> TensorProto:
    value: Any = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    tensor: TensorProto = numpy_helper.from_array(value, name)
    return tensor


def known(layout: Layout | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    assert layout is not None
    assert layout.tensors is not None
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in layout.tensors}


def content(data: bytes, layout: Layout | None, name: str) -> bytes:
    assert layout is not None
    [stretch] = (s for s in layout.stretches if s.name == name)
    return data[stretch.start : stretch.end]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
                                   "float16", "float32", "float64", "complex64", "complex128"])  # fmt: skip
def test_raw_data(detected: Detect, dtype: str) -> None:
    value: Any = np.arange(12).reshape(3, 4).astype(dtype)
    data = model_of(graph_of([numpy_helper.from_array(value, "w"), array("b", 7)]))
    layout = detected(data, NAME)
    assert known(layout) == {"w": (dtype, (3, 4)), "b": ("float32", (7,))}
    assert content(data, layout, "w") == value.tobytes()
    assert layout is not None
    assert layout.tensors == layout.stretches
    assert (layout.format, layout.framework, layout.parameters) == ("onnx", None, 19)


# As torch writes it: what the model computes does not matter here.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_of_torch(detected: Detect, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.Linear(20, 10))
    path = tmp_path / "model.onnx"
    torch.onnx.export(model, (torch.zeros(1, 30),), str(path), dynamo=False)
    data = path.read_bytes()
    layout = detected(data, NAME)
    assert layout is not None
    assert layout.framework == "pytorch"
    assert layout.parameters == 30 * 20 + 20 + 20 * 10 + 10
    for name, value in model.state_dict().items():
        assert content(data, layout, name) == value.numpy().tobytes()


@pytest.mark.parametrize(
    ("kind", "dtype", "count", "size"),
    [
        (TensorProto.BFLOAT16, "bfloat16", 3, 6),
        (TensorProto.FLOAT8E4M3FN, "float8_e4m3fn", 3, 3),
        (TensorProto.FLOAT8E5M2, "float8_e5m2", 3, 3),
        (TensorProto.INT4, "int4", 3, 2),
        (TensorProto.UINT4, "uint4", 4, 2),
        (TensorProto.FLOAT4E2M1, "float4_e2m1", 5, 3),
        (TensorProto.UINT2, "uint2", 5, 2),
    ],
)
def test_types_that_numpy_has_not(detected: Detect, kind: int, dtype: str, count: int, size: int) -> None:
    tensor = TensorProto(name="w", data_type=kind, dims=[count], raw_data=b"\x11" * size)
    data = model_of(graph_of([tensor]))
    layout = detected(data, NAME)
    assert known(layout) == {"w": (dtype, (count,))}
    assert content(data, layout, "w") == b"\x11" * size


def test_values_by_their_type(detected: Detect) -> None:
    floats = helper.make_tensor("floats", TensorProto.FLOAT, [3], [1.0, 2.0, 3.0])
    doubles = helper.make_tensor("doubles", TensorProto.DOUBLE, [1], [1.0])
    integers = helper.make_tensor("integers", TensorProto.INT64, [3], [1, -1, 300])
    data = model_of(graph_of([floats, doubles, integers]))
    layout = detected(data, NAME)
    assert layout is not None
    assert layout.parameters == 7
    assert {s.name: s.dtype for s in layout.stretches} == {"floats": "float32", "doubles": "float64", "integers": None}
    assert content(data, layout, "floats") == np.array([1, 2, 3], np.float32).tobytes()
    assert content(data, layout, "doubles") == np.float64(1).tobytes()


def test_strings_are_no_tensors(detected: Detect) -> None:
    strings = helper.make_tensor("words", TensorProto.STRING, [2], [b"a", b"bc"])
    layout = detected(model_of(graph_of([strings, array("w", 3)])), NAME)
    assert known(layout) == {"w": ("float32", (3,))}


def test_a_type_to_come_leaves_the_tensors_unknown(detected: Detect) -> None:
    data = model_of(graph_of([TensorProto(name="w", data_type=99, dims=[3], raw_data=bytes(50)), array("b", 3)]))
    layout = detected(data, NAME)
    assert layout is not None
    assert layout.tensors is None
    assert {s.name: (s.dtype, s.shape) for s in layout.stretches} == {"w": (None, (50,)), "b": ("float32", (3,))}


def test_graphs_in_nodes_and_functions(detected: Detect) -> None:
    inner = helper.make_node("If", ["c"], ["y"], then_branch=graph_of([array("deep", 4)]), else_branch=graph_of([]))
    outer = helper.make_node("If", ["c"], ["x"], then_branch=graph_of([array("inner", 3)], [inner]))
    function = helper.make_function("d", "f", [], ["y"], [inner], [])
    data = model_of(graph_of([array("w", 2)], [outer]), functions=[function])
    layout = detected(data, NAME)
    assert layout is not None
    assert sorted(t.name for t in layout.tensors or ()) == ["deep", "deep", "inner", "w"]


def test_sparse_tensors_hold_two(detected: Detect) -> None:
    sparse = helper.make_sparse_tensor(array("values", 2), array("indices", 2, dtype="int64"), [9])
    layout = detected(model_of(graph_of([], sparse_initializer=[sparse])), NAME)
    assert known(layout) == {"values": ("float32", (2,)), "indices": ("int64", (2,))}


@pytest.fixture
def split(tmp_path: Path) -> tuple[bytes, bytes, dict[str, Any]]:
    """A model, the file beside it, and the arrays that lie there."""
    arrays: dict[str, Any] = {f"w{i}": np.arange(300 * (i + 1), dtype=np.float32) for i in range(3)}
    model = helper.make_model(graph_of([numpy_helper.from_array(value, name) for name, value in arrays.items()]))
    model.graph.initializer.append(array("inside", 5))
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=100)
    return path.read_bytes(), (tmp_path / "model.onnx.data").read_bytes(), arrays


def test_external_data(detected: Detect, split: tuple[bytes, bytes, dict[str, Any]]) -> None:
    data, beside, arrays = split
    layout = detected(data, NAME)
    assert known(layout) == {"inside": ("float32", (5,))}
    assert layout is not None
    assert {t.name: (t.location, t.dtype, t.shape) for t in layout.external} == {
        name: ("model.onnx.data", "float32", value.shape) for name, value in arrays.items()
    }
    other = external_layout(layout, b"model.onnx.data", len(beside))
    assert other is not None
    assert (other.format, other.parameters) == ("onnx-data", 1800)
    assert other.tensors == other.stretches
    assert all(beside[t.start : t.end] == arrays[t.name].tobytes() for t in other.tensors or ())


def test_files_that_do_not_fit_hold_no_external_data(
    detected: Detect, split: tuple[bytes, bytes, dict[str, Any]]
) -> None:
    layout = detected(split[0], NAME)
    assert layout is not None
    assert external_layout(layout, b"model.onnx.data", len(split[1]) - 1) is None
    assert external_layout(layout, b"other.data", len(split[1])) is None


def external(location: str, name: str = "w", **entries: object) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def test_offset_and_length_may_be_left_out(detected: Detect) -> None:
    layout = detected(model_of(graph_of([external("./x")])), NAME)
    assert layout is not None
    assert layout.external == (ExternalTensor("w", "float32", (4,), "./x", 0, 16),)
    other = external_layout(layout, b"x", 16)
    assert other is not None
    assert other.extents == ((0, 16),)


def test_tensors_that_share_external_data_count_once(detected: Detect) -> None:
    layout = detected(model_of(graph_of([external("x", "a"), external("x", "b"), external("y", "c")])), NAME)
    assert layout is not None
    other = external_layout(layout, b"x", 16)
    assert other is not None
    assert [t.name for t in other.tensors or ()] == ["a"]


def test_overlapping_external_data_is_unknown(detected: Detect) -> None:
    layout = detected(model_of(graph_of([external("x", "a"), external("x", "b", offset=8)])), NAME)
    assert layout is not None
    assert external_layout(layout, b"x", 100) is None


@pytest.mark.parametrize("location", ["/etc/passwd", "../x", "a/../x", ""])
def test_locations_elsewhere_match_no_name(detected: Detect, location: str) -> None:
    layout = detected(model_of(graph_of([external(location)])), NAME)
    assert layout is not None
    assert external_layout(layout, b"x", 100) is None
    assert external_layout(layout, b"passwd", 100) is None


def message(*fields: tuple[int, bytes]) -> bytes:
    """Length-delimited fields with numbers below 16."""
    return b"".join(bytes([number << 3 | 2]) + varint(len(value)) + value for number, value in fields)


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def wrapped(depth: int) -> bytes:
    """Graphs in attributes of nodes in graphs."""
    data = b""
    for _ in range(depth):
        data = message((1, message((5, message((6, data))))))
    return data


BAD = {
    "empty": b"",
    "no graph": b"\x08\x07\x12\x07pytorch",
    "text": b"this is no model at all",
    "group": b"\x0b\x0c",
    "field zero": b"\x02\x00",
    "length past the end": b"\x3a\x7f",
    "endless varint": b"\x08" + b"\xff" * 20,
    "cut off": model_of(graph_of([array("w", 30)]))[:-20],
    "too few bytes": model_of(graph_of([TensorProto(name="w", data_type=1, dims=[4], raw_data=bytes(15))])),
    "no bytes": model_of(graph_of([TensorProto(name="w", data_type=1, dims=[4])])),
    "negative": model_of(graph_of([TensorProto(name="w", data_type=1, dims=[-4], raw_data=bytes(16))])),
    "huge": model_of(graph_of([TensorProto(name="w", data_type=1, dims=[1 << 40] * 3)])),
    "many dimensions": model_of(graph_of([TensorProto(name="w", data_type=1, dims=[1] * 70, raw_data=bytes(4))])),
    "two kinds of data": model_of(
        graph_of([TensorProto(name="w", data_type=1, dims=[4], raw_data=bytes(16), float_data=[1.0] * 4)])
    ),
    "offset of text": model_of(graph_of([external("x", offset="all")])),
    "negative offset": model_of(graph_of([external("x", offset=-1)])),
    "other length": model_of(graph_of([external("x", length=17)])),
    "long location": model_of(graph_of([external("x" * 5000)])),
    "deep nesting": message((7, wrapped(1000))),
}


@pytest.mark.parametrize("name", BAD)
def test_malformed_is_unknown(detected: Detect, name: str) -> None:
    assert detected(BAD[name], NAME) is None


@pytest.mark.parametrize("part", [b"\x2a\x00", b"\x0a\x00", b"\x08\x00"], ids=["tensors", "nodes", "numbers"])
def test_too_many_fields_are_unknown(detected: Detect, part: bytes) -> None:
    assert detected(message((7, part * 1_100_000)), NAME) is None


def test_packed_sizes(detected: Detect) -> None:
    tensor = message((1, varint(300) + varint(2)), (8, b"w"), (9, bytes(2400))) + b"\x10\x01"
    layout = detected(message((7, message((5, tensor)))), NAME)
    assert known(layout) == {"w": ("float32", (300, 2))}


def test_only_files_named_so_are_read(detected: Detect) -> None:
    data = model_of(graph_of([array("w", 3)]))
    assert detected(data, b"MODEL.ONNX") is not None
    assert detected(data, b"model.bin") is None
