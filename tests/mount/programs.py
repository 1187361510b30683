"""Real programs of the field, run in a process of its own so that their imports are paid once.

`make FOLDER` writes model files; `read PLAIN MOUNTED` reads both places and compares; `write FOLDER` writes and reads
back. The last line of output is JSON: the result of every check, "ok" or the error.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import onnx
import onnxruntime
import safetensors
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset

CHECKS: dict[str, Callable[[Path, Path], None]] = {}
ROWS = 256


def check(function: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """Register a comparison of a plain and a mounted folder."""
    CHECKS[function.__name__] = function
    return function


def make(folder: Path) -> None:
    """Model files of every kind that is read below."""
    torch.manual_seed(1)
    state = {"a.weight": torch.randn(512, 1024), "a.bias": torch.randn(512), "b": torch.randn(64, 64).bfloat16()}
    torch.save(state, folder / "model.pt")
    torch.save({"state": state, "epoch": 3, "note": ("any", "object")}, folder / "checkpoint.pt")
    save_file(state, folder / "model.safetensors")
    np.save(folder / "array.npy", np.arange(ROWS * 1024, dtype=np.float32).reshape(ROWS, 1024))
    make_onnx(folder)
    config = transformers.BertConfig(
        vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    transformers.BertModel(config).save_pretrained(folder / "bert")
    with closing(sqlite3.connect(folder / "data.sqlite")) as db, db:
        db.execute("CREATE TABLE rows (x INTEGER, y TEXT)")
        db.executemany("INSERT INTO rows VALUES (?, ?)", [(n, "text" * 20) for n in range(5000)])


def load(folder: Path) -> dict[str, torch.Tensor]:
    """The weights as they are on disk."""
    found: dict[str, torch.Tensor] = torch.load(folder / "model.pt")
    return found


def make_onnx(folder: Path) -> None:
    """y = x @ W with W in a file of its own."""
    weights = np.random.default_rng(1).normal(size=(256, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 64])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save_model(
        model, str(folder / "model.onnx"), save_as_external_data=True, location="model.onnx.data", size_threshold=0
    )


def same_states(one: dict[str, Any], two: dict[str, Any]) -> None:
    """Raise unless two state dicts are equal bit by bit."""
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor.view(torch.uint8), two[name].view(torch.uint8)), name


@check
def torch_load(plain: Path, mounted: Path) -> None:
    same_states(torch.load(plain / "model.pt"), torch.load(mounted / "model.pt"))


@check
def torch_load_mmap(plain: Path, mounted: Path) -> None:
    same_states(torch.load(plain / "model.pt"), torch.load(mounted / "model.pt", mmap=True))


@check
def torch_load_mmap_and_train(plain: Path, mounted: Path) -> None:
    """The mapping is private: what is added to the weights stays in memory."""
    trained = torch.load(mounted / "model.pt", mmap=True)
    for tensor in trained.values():
        tensor.add_(1)
    same_states({name: t - 1 for name, t in trained.items()}, {name: t + 1 - 1 for name, t in load(plain).items()})
    same_states(load(plain), load(mounted))


@check
def torch_load_any_object(plain: Path, mounted: Path) -> None:
    one, two = (torch.load(folder / "checkpoint.pt", weights_only=False) for folder in (plain, mounted))
    same_states(one["state"], two["state"])
    assert (two["epoch"], two["note"]) == (3, ("any", "object"))


@check
def safetensors_load_file(plain: Path, mounted: Path) -> None:
    same_states(load_file(plain / "model.safetensors"), load_file(mounted / "model.safetensors"))


@check
def safetensors_safe_open(plain: Path, mounted: Path) -> None:
    expected = load_file(plain / "model.safetensors")
    with safetensors.safe_open(mounted / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(expected)
        assert torch.equal(file.get_slice("a.weight")[100:200], expected["a.weight"][100:200])


@check
def numpy_mmap(plain: Path, mounted: Path) -> None:
    view = np.load(mounted / "array.npy", mmap_mode="r")
    assert np.array_equal(view, np.load(plain / "array.npy"))


@check
def onnxruntime_external_data(plain: Path, mounted: Path) -> None:
    feed: dict[str, Any] = {"x": np.ones((1, 256), dtype=np.float32)}
    one, two = (onnxruntime.InferenceSession(str(f / "model.onnx")).run(None, feed)[0] for f in (plain, mounted))
    assert np.array_equal(one, two)


@check
def transformers_from_pretrained(plain: Path, mounted: Path) -> None:
    one, two = (transformers.BertModel.from_pretrained(folder / "bert") for folder in (plain, mounted))
    same_states(one.state_dict(), two.state_dict())


class Rows(Dataset):  # type: ignore[misc]
    """Rows of a mapped array, opened in the parent and read in forked workers."""

    def __init__(self, path: Path) -> None:
        self.rows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> Any:
        return torch.from_numpy(np.array(self.rows[number]))


@check
def dataloader_with_forked_workers(plain: Path, mounted: Path) -> None:
    loader = DataLoader(Rows(mounted / "array.npy"), batch_size=32, num_workers=2, multiprocessing_context="fork")
    found = torch.cat(list(loader))
    assert torch.equal(found, torch.from_numpy(np.load(plain / "array.npy")))


@check
def sqlite_read_only(plain: Path, mounted: Path) -> None:
    query = "SELECT count(*), sum(x), max(y) FROM rows"
    with (
        closing(sqlite3.connect(plain / "data.sqlite")) as one,
        closing(sqlite3.connect(f"file:{mounted}/data.sqlite?mode=ro", uri=True)) as two,
    ):
        assert one.execute(query).fetchall() == two.execute(query).fetchall()


def write(folder: Path) -> dict[str, str]:
    """Save with the usual calls, read back, leave the files."""
    state = {"w": torch.randn(256, 1024), "b": torch.arange(10)}

    def torch_save() -> None:
        for _ in range(2):  # the second overwrites
            torch.save(state, folder / "saved.pt")
        same_states(state, torch.load(folder / "saved.pt", mmap=True))

    def safetensors_save_file() -> None:
        for _ in range(2):
            save_file(state, folder / "saved.safetensors")
        same_states(state, load_file(folder / "saved.safetensors"))

    def numpy_memmap() -> None:
        out: Any = np.memmap(folder / "mapped.bin", dtype=np.int64, mode="w+", shape=(100_000,))
        out[:] = np.arange(100_000)
        out.flush()
        assert np.array_equal(np.fromfile(folder / "mapped.bin", dtype=np.int64), np.arange(100_000))

    def transformers_save_pretrained() -> None:
        config = transformers.BertConfig(
            vocab_size=128, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
        )
        model = transformers.BertModel(config)
        model.save_pretrained(folder / "bert")
        same_states(model.state_dict(), transformers.BertModel.from_pretrained(folder / "bert").state_dict())

    tasks = (torch_save, safetensors_save_file, numpy_memmap, transformers_save_pretrained)
    return {task.__name__: result(task) for task in tasks}


def result(task: Callable[[], None]) -> str:
    """ "ok" or what went wrong."""
    try:
        task()
    except Exception:  # noqa: BLE001 - every check reports, whatever it raises
        return traceback.format_exc()
    return "ok"


def main() -> None:
    """Run one of the three."""
    action, *folders = sys.argv[1:]
    paths = [Path(folder) for folder in folders]
    found: dict[str, str] = {}
    if action == "make":
        make(*paths)
    elif action == "read":
        found = {name: result(lambda f=function: f(*paths)) for name, function in CHECKS.items()}  # type: ignore[misc]
    else:
        found = write(*paths)
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
