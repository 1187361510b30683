"""The schemes that shardfs is compared with store what they should, and no more."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.benchmarks import schemes
from tests.benchmarks.schemes import zipllm_like
from tests.benchmarks.schemes.parts import parts_of
from tests.benchmarks.schemes.result import NotLosslessError, check_same

VALUES = 300_000


def weights(seed: int) -> Any:
    return np.random.default_rng(seed).normal(0, 0.02, VALUES).astype(np.float32)


def write(folder: Path, name: str, **tensors: Any) -> Path:
    save_file(tensors, folder / name)
    return folder / name


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_planes_put_the_exponent_last_and_come_back(dtype: type) -> None:
    words = np.frombuffer(os.urandom(4096), dtype)
    streams = zipllm_like.planes(words)
    assert (zipllm_like.unplaned(streams) == words).all()
    exponents = (words >> (8 * words.itemsize - 9)) & 0xFF
    assert streams[-1] == exponents.astype(np.uint8).tobytes()


def test_parts_cover_a_file_and_name_its_tensors(tmp_path: Path) -> None:
    file = write(tmp_path, "a.safetensors", x=weights(1), y=np.arange(5))
    parts = list(parts_of(file))
    assert [part.start for part in parts] == [0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == file.stat().st_size
    assert {part.name: part.float_bytes for part in parts[1:]} == {"x": 4, "y": 0}


def test_zipllm_like_keeps_an_equal_tensor_once_and_a_moved_one_as_a_difference(tmp_path: Path) -> None:
    base = weights(1)
    moved = base + np.random.default_rng(2).normal(0, 1e-6, VALUES).astype(np.float32)
    first = write(tmp_path, "a.safetensors", still=weights(3), moving=base)
    second = write(tmp_path, "b.safetensors", still=weights(3), moving=moved)
    alone, both = (zipllm_like.store(files).stored for files in ([first], [first, second]))
    assert 0 < both - alone < 0.6 * base.nbytes


def test_xet_like_stores_little_for_inserted_bytes(tmp_path: Path) -> None:
    pytest.importorskip("lz4")
    data = os.urandom(2_000_000)
    for name, content in (("a", data), ("b", data[:1_000_000] + b"inserted" + data[1_000_000:])):
        (tmp_path / name).write_bytes(content)
    one = schemes.store("xet-like", [tmp_path / "a"])
    two = schemes.store("xet-like", [tmp_path / "a", tmp_path / "b"])
    assert one is not None
    assert two is not None
    assert one.distinct == len(data)
    assert two.distinct - one.distinct <= 3 * 128 * 1024


def test_lossy_result_is_refused() -> None:
    with pytest.raises(NotLosslessError):
        check_same(b"decoded", b"original")
