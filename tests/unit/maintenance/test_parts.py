from __future__ import annotations

import numpy as np
import pytest
from onnx import external_data_helper, helper, numpy_helper
from safetensors.numpy import save

from shardfs.errors import ChunkCorruptedError
from shardfs.formats.ids import Kind
from shardfs.history.objects import Objects
from shardfs.maintenance.parts import By, Part, parts
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests.stores import CHUNK_SIZE, changed, commit, local_entries, noise, put_delta, sql


def found(store: Store, by: By) -> list[Part]:
    """The parts of the tip of main."""
    reader = Reader(store, budget_bytes=0)
    objects = Objects(reader)
    tip = store.refs.get("refs/heads/main")
    assert tip is not None
    return parts(store.index, objects, reader, objects.commit(tip).tree, by)


def stored_bytes(store: Store) -> int:
    return sum(entry.stored_size for _, entry in local_entries(store, [Kind.CHUNK]))


def test_files_largest_first_with_codecs_and_depth(store: Store) -> None:
    one = noise(1, CHUNK_SIZE)
    with store.batch() as batch:
        put_delta(batch, changed(one, 1), one)
    commit(store, {"delta": changed(one, 1), "deep/big": noise(2, 3 * CHUNK_SIZE), "text": b"a" * 1000, "empty": b""})
    rows = {b"/".join(part.path).decode(): part for part in found(store, "file")}
    assert list(rows) == ["deep/big", "delta", "text", "empty"]
    assert (rows["deep/big"].logical_bytes, rows["deep/big"].chunks) == (3 * CHUNK_SIZE, 3)
    assert (rows["deep/big"].codecs, rows["deep/big"].depth) == (("raw",), 0)
    assert (rows["delta"].codecs, rows["delta"].depth) == (("patch",), 1)
    assert rows["delta"].stored_bytes < 100
    assert rows["text"].codecs == ("zstd",)
    assert (rows["empty"].chunks, rows["empty"].stored_bytes, rows["empty"].codecs) == (0, 0, ())


def test_equal_files_share_their_bytes(store: Store) -> None:
    data = noise(1, CHUNK_SIZE)
    commit(store, {"a": data, "b": data, "c": data * 2})
    rows = {part.path[0]: part.stored_bytes for part in found(store, "file")}
    assert rows == {b"a": CHUNK_SIZE // 4, b"b": CHUNK_SIZE // 4, b"c": CHUNK_SIZE // 2}


def test_tensors_add_up_to_what_their_files_store(store: Store) -> None:
    chance = np.random.default_rng(1)
    tensors = {
        "large": chance.integers(0, 256, (64, 160), np.uint8),
        "small.a": chance.integers(0, 256, 300, np.uint8),
        "small.b": chance.integers(0, 256, 100, np.uint8),
        "zeros": np.zeros((2, 4096), np.uint8),
    }
    data = save(tensors)
    commit(store, {"models/m.safetensors": data})
    rows = found(store, "tensor")
    by_name = {part.tensor.name if part.tensor else None: part for part in rows}
    assert {part.path for part in rows} == {(b"models", b"m.safetensors")}
    assert by_name.keys() == {None, *tensors}
    large = by_name["large"].tensor
    assert large is not None
    assert (large.dtype, large.shape) == ("uint8", (64, 160))
    assert {name: by_name[name].logical_bytes for name in tensors} == {n: t.nbytes for n, t in tensors.items()}
    assert sum(part.logical_bytes for part in rows) == len(data)
    assert abs(sum(part.stored_bytes for part in rows) - stored_bytes(store)) <= len(rows) / 2
    assert [part.stored_bytes for part in rows] == sorted((part.stored_bytes for part in rows), reverse=True)
    assert rows[0].tensor == large
    assert by_name["small.a"].stored_bytes > by_name["small.b"].stored_bytes > 0
    assert by_name["zeros"].stored_bytes < 1000


def test_files_that_are_no_models_have_no_tensors(store: Store) -> None:
    commit(store, {"notes.txt": b"text", "empty": b"", "m.safetensors": save({"x": np.zeros(4, np.uint8)})})
    assert {part.path for part in found(store, "tensor")} == {(b"m.safetensors",)}


def test_tensors_in_a_file_beside_their_model(store: Store) -> None:
    weights = numpy_helper.from_array(np.arange(2000, dtype=np.float32), "weights")
    model = helper.make_model(helper.make_graph([], "graph", [], [], [weights]))
    external_data_helper.convert_model_to_external_data(model, location="m.onnx.data", size_threshold=0)
    [tensor] = model.graph.initializer
    data = tensor.raw_data
    tensor.external_data.add(key="offset", value="0")
    tensor.external_data.add(key="length", value=str(len(data)))
    tensor.ClearField("raw_data")
    commit(store, {"m.onnx": model.SerializeToString(), "m.onnx.data": data, "other.data": data[1:]})
    names = {(part.path[0], part.tensor.name) for part in found(store, "tensor") if part.tensor}
    assert names == {(b"m.onnx.data", "weights")}


def test_chunks_that_are_not_known_count_as_not_stored(store: Store) -> None:
    commit(store, {"a": noise(1, CHUNK_SIZE)})
    sql(store, f"DELETE FROM entries WHERE kind = {Kind.CHUNK.value}")
    [part] = found(store, "file")
    assert (part.chunks, part.stored_bytes, part.codecs) == (1, 0, ())


def test_files_need_no_chunks_and_tensors_need_the_header(store: Store) -> None:
    commit(store, {"m.safetensors": save({"x": np.zeros(4, np.uint8)})})
    for pack, entry in local_entries(store, [Kind.CHUNK]):
        with store.layout.pack(pack).open("r+b") as file:
            file.seek(entry.offset)
            file.write(bytes(entry.stored_size))
    assert found(store, "file")[0].stored_bytes > 0
    with pytest.raises(ChunkCorruptedError):
        found(store, "tensor")
