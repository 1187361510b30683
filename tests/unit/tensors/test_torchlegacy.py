from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
import torch

from shardfs.tensors import Layout

Detect = Callable[..., Layout | None]
ONE = bytes.fromhex("0000803f")
RECOGNISED = Layout("torch-legacy", "pytorch")


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def test_state_dict(detected: Detect) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.BatchNorm1d(20))
    state = model.state_dict()
    data = saved({"model": state, "epoch": 3})
    layout = detected(data)
    assert layout is not None
    assert (layout.format, layout.framework) == ("torch-legacy", "pytorch")
    assert layout.tensors == layout.stretches
    got = {t.name.removeprefix("model."): t for t in layout.tensors or ()}
    assert got.keys() == state.keys()
    for name, value in state.items():
        assert (got[name].dtype, got[name].shape) == (str(value.dtype).removeprefix("torch."), tuple(value.shape))
        assert data[got[name].start : got[name].end] == value.numpy().tobytes()


def test_views_of_one_storage(detected: Detect) -> None:
    whole, weight = torch.arange(100, dtype=torch.int16), torch.ones(3).to(torch.uint16)
    data = saved({"low": whole[:10], "high": whole[90:], "w": weight, "tied": weight})
    layout = detected(data)
    assert layout is not None
    assert {t.name: (t.dtype, t.shape) for t in layout.tensors or ()} == {
        "low": ("int16", (10,)),
        "high": ("int16", (10,)),
        "w": ("uint16", (3,)),
    }
    assert {s.name: (s.dtype, s.shape) for s in layout.stretches} == {"low": ("int16", (100,)), "w": ("uint16", (3,))}


def test_without_tensors(detected: Detect) -> None:
    assert detected(saved({"epoch": 3})) == Layout("torch-legacy", "pytorch", ())


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_files_cut_off_are_recognised(detected: Detect, cut: int) -> None:
    data = saved({"w": torch.ones(4)})
    assert detected(data[:-cut]) == RECOGNISED
    assert detected(data[: 15 + cut]) == RECOGNISED


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x04" + bytes(7) + ONE, b"\x05" + bytes(7) + ONE),  # more elements than the tensor's storage
        (b"q\x01a.", b"q\x010."),  # a storage that is not in the list
        (b"cpuq\x06K\x04", b"cpuq\x06K\xff"),  # storage larger than the file
    ],
)
def test_what_is_not_understood_is_recognised(detected: Detect, old: bytes, new: bytes) -> None:
    data = saved({"w": torch.ones(4)})
    assert data.count(old) == 1
    assert detected(data.replace(old, new)) == RECOGNISED


def test_a_preamble_without_an_end_is_recognised(detected: Detect) -> None:
    assert detected(saved({})[:15] + b"\x80\x02" + b"}0" * 1000 + b".") == RECOGNISED
