from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from shardfs.tensors import Layout, detect

Detect = Callable[..., Layout | None]


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def names(layout: Layout | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    assert layout is not None
    assert layout.tensors is not None
    return {t.name: (t.dtype, t.shape) for t in layout.tensors}


def content(data: bytes, layout: Layout | None, name: str) -> bytes:
    assert layout is not None
    (tensor,) = (t for t in layout.tensors or () if t.name == name)
    return data[tensor.start : tensor.end]


def raw(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy())


def test_state_dict(detected: Detect) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(30, 20), torch.nn.BatchNorm1d(20))
    data = saved(model.state_dict())
    layout = detected(data)
    assert layout is not None
    assert (layout.format, layout.framework) == ("torch-zip", "pytorch")
    state = model.state_dict()
    assert names(layout) == {k: (str(v.dtype).removeprefix("torch."), tuple(v.shape)) for k, v in state.items()}
    assert all(content(data, layout, k) == raw(v) for k, v in state.items())
    assert layout.parameters == sum(v.numel() for v in state.values())


def test_nested_optimizer_state(detected: Detect) -> None:
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 8)).sum().backward()
    optimizer.step()
    layout = detected(saved({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}))
    got = names(layout)
    assert got["optimizer.state.0.exp_avg"] == ("float32", (4, 8))
    assert got["optimizer.state.1.step"] == ("float32", ())
    assert len(got) == 2 + 6
    assert layout is not None
    assert layout.parameters == 3 * (32 + 4) + 2


def test_tied_tensors_count_once(detected: Detect) -> None:
    weight = torch.randn(10, 4)
    layout = detected(saved({"embed": weight, "head": weight, "head.t": weight.t()}))
    assert list(names(layout)) == ["embed"]
    assert layout is not None
    assert layout.parameters == 40


def test_views_of_one_storage(detected: Detect) -> None:
    whole = torch.arange(100, dtype=torch.int32)
    data = saved({"low": whole[:10], "high": whole[90:], "odd": whole[1:20:2]})
    layout = detected(data)
    assert content(data, layout, "low") == raw(whole[:10])
    assert content(data, layout, "high") == raw(whole[90:])
    assert content(data, layout, "odd") == raw(whole[1:20])
    assert layout is not None
    assert layout.parameters == 30
    assert all(end <= len(data) for _, end in layout.extents)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
        torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32,
        torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
    ],
)  # fmt: skip
def test_dtypes(detected: Detect, dtype: torch.dtype) -> None:
    tensor = torch.ones(3, 2).to(dtype)
    data = saved({"x": tensor})
    layout = detected(data)
    assert names(layout) == {"x": (str(dtype).removeprefix("torch."), (3, 2))}
    assert content(data, layout, "x") == raw(tensor)


def test_odd_containers(detected: Detect) -> None:
    value = {
        "p": torch.nn.Parameter(torch.zeros(2)),
        "list": [torch.zeros(3), (torch.ones(4), {"k": torch.ones(5)})],
        7: torch.zeros(1, 1),
        "sparse": torch.eye(3).to_sparse(),
        "empty a": torch.zeros(0),
        "empty b": torch.zeros(0, 5),
    }
    got = names(detected(saved(value)))
    assert got["p"] == ("float32", (2,))
    assert got["list.0"] == ("float32", (3,))
    assert got["list.1.0"] == ("float32", (4,))
    assert got["list.1.1.k"] == ("float32", (5,))
    assert got["7"] == ("float32", (1, 1))
    assert got["empty a"] == ("float32", (0,))
    assert got["empty b"] == ("float32", (0, 5))
    assert sum(name.startswith("sparse") for name in got) == 2
    assert len(got) == 9


def test_whole_modules_read_like_state_dicts(detected: Detect) -> None:
    model = torch.nn.Sequential(OrderedDict(one=torch.nn.Linear(3, 2), two=torch.nn.BatchNorm1d(2)))
    assert names(detected(saved(model))) == {
        k: (str(v.dtype).removeprefix("torch."), tuple(v.shape)) for k, v in model.state_dict().items()
    }


def test_newer_pickle_protocol(detected: Detect) -> None:
    value = {"a": torch.zeros(4, 4), "b": [torch.zeros(2)]}
    assert set(names(detected(saved(value, pickle_protocol=4)))) == {"a", "b.0"}


def test_bare_tensor_has_no_name(detected: Detect) -> None:
    assert names(detected(saved(torch.zeros(4)))) == {"": ("float32", (4,))}


def test_the_stem_is_no_part_of_any_name(tmp_path: Path) -> None:
    path = tmp_path / "epoch-10.pt"
    torch.save({"w": torch.zeros(4)}, path)
    data = path.read_bytes()
    layout = detect(lambda offset, size: data[offset : offset + size], len(data))
    assert set(names(layout)) == {"w"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_torchscript(detected: Detect) -> None:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.Linear(5, 6)), buffer)
    layout = detected(buffer.getvalue())
    assert layout is not None
    assert (layout.format, layout.parameters) == ("torchscript", 36)


def stretches(layout: Layout | None) -> dict[str, tuple[str | None, tuple[int, ...], int]]:
    assert layout is not None
    return {s.name: (s.dtype, s.shape, s.end - s.start) for s in layout.stretches}


def test_stretches_are_storages_with_the_names_of_tensors(detected: Detect) -> None:
    whole, weight = torch.arange(100, dtype=torch.int32), torch.randn(4, 10)
    data = saved({"low": whole[:10], "high": whole[90:], "w": weight, "tied": weight.t(), "part": torch.ones(9)[2:]})
    layout = detected(data)
    got = stretches(layout)
    assert got["low"] == ("int32", (100,), 400)
    assert got["w"] == ("float32", (4, 10), 160)
    assert got["part"] == ("float32", (9,), 36)
    assert not {"high", "tied"} & got.keys()
    # What is no storage has the name of its member, without the stem.
    assert got["data.pkl"][0] is None
    assert got["version"] == (None, (2,), 2)
    assert layout is not None
    tensors = {t.name for t in layout.stretches if t in (layout.tensors or ())}
    assert tensors == {"w"}


def test_a_storage_of_several_types_has_none(detected: Detect) -> None:
    whole = torch.zeros(16).to(torch.uint16)
    got = stretches(detected(saved({"a": whole, "b": whole.view(torch.uint32)})))
    assert got["a"] == (None, (32,), 32)


def test_a_storage_that_no_view_names_has_the_name_of_its_member(detected: Detect) -> None:
    got = stretches(detected(archive_of(data_pkl=b"\x80\x02}.", data__0=bytes(100))))
    assert got["data/0"] == (None, (100,), 100)


def test_stretches_without_an_understood_pickle(detected: Detect) -> None:
    layout = detected(archive_of(data_pkl=b"?", data__0=bytes(100)))
    assert layout is not None
    assert layout.tensors is None
    assert stretches(layout) == {"data.pkl": (None, (1,), 1), "data/0": (None, (100,), 100)}


def test_big_endian_elements_are_no_elements_to_a_codec(detected: Detect) -> None:
    source = zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(4)})))
    members = {"data_pkl": source.read("archive/data.pkl"), "data__0": bytes(16)}
    assert stretches(detected(archive_of(**members, byteorder=b"little")))["w"] == ("float32", (4,), 16)
    assert stretches(detected(archive_of(**members, byteorder=b"big")))["w"] == (None, (16,), 16)


def test_other_zip_files_are_unknown(detected: Detect) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert detected(buffer.getvalue()) is None


def test_compressed_members_are_left_out(detected: Detect) -> None:
    source = zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(400)})))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for item in source.infolist():
            stored = item.filename.endswith("data.pkl")
            kind = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            archive.writestr(item.filename, source.read(item), kind)
    layout = detected(buffer.getvalue())
    assert layout is not None
    assert layout.tensors is None
    assert len(layout.extents) == 1


def archive_of(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr("a/" + name.replace("__", "/").replace("_pkl", ".pkl"), data)
    return buffer.getvalue()


def test_zip64(detected: Detect) -> None:
    """A member of more than 4 GiB behind which everything else lies, as real bytes only where they are read."""
    huge = 5 << 30
    small = io.BytesIO()
    torch.save({"w": torch.zeros(20_000)}, small)
    source = zipfile.ZipFile(small)
    written = SparseFile()
    with zipfile.ZipFile(written, "w", allowZip64=True) as archive:
        with archive.open(zipfile.ZipInfo("archive/data/big"), "w", force_zip64=True) as member:
            written.skip(huge)
            # Only the size is taken from here; nothing reads the checksum.
            member._file_size = member._compress_size = huge  # type: ignore[attr-defined]
        for item in source.infolist():
            archive.writestr(item.filename, source.read(item))
    layout = detect(written.read_at, written.size)
    assert layout is not None
    assert names(layout) == {"w": ("float32", (20_000,))}
    assert any(end - start == huge for start, end in layout.extents)
    assert layout.tensors is not None
    assert layout.tensors[0].start > huge


class SparseFile(io.RawIOBase):
    """Written bytes with a gap, kept as pieces."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.position = self.size = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = offset + (0, self.position, self.size)[whence]
        return self.position

    def skip(self, count: int) -> None:
        self.position += count
        self.size = max(self.size, self.position)

    def write(self, data: Any) -> int:
        self.pieces.append((self.position, bytes(data)))
        self.skip(len(data))
        return len(data)

    def read_at(self, offset: int, size: int) -> bytes:
        out = bytearray(max(0, min(size, self.size - offset)))
        for start, data in self.pieces:
            first, last = max(start, offset), min(start + len(data), offset + len(out))
            if first < last:
                out[first - offset : last - offset] = data[first - start : last - start]
        return bytes(out)


class Trap:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("trapped"),))


def test_nothing_is_unpickled(detected: Detect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    layout = detected(archive_of(data_pkl=pickle.dumps({"x": Trap()}, 2)))
    assert layout is not None
    assert layout.tensors == ()
    assert list(tmp_path.iterdir()) == []


BAD_PICKLES = {
    "empty": b"",
    "no stop": b"\x80\x02}",
    "underflow": b"\x80\x02s.",
    "unknown opcode": b"\x80\x02\xff.",
    "missing memo": b"\x80\x02h\x05.",
    "no mark": b"\x80\x02t.",
    "huge string": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b".",
    "negative put": b"p-5\n.",
    "set on a number": b"\x80\x02K\x01K\x02K\x03s.",
    "too many operations": b"\x80\x02" + b"}0" * 600_000 + b".",
    "global of nested tuples": b"\x80\x04\x8c\x01m)" + b"2\x86" * 60 + b"\x93.",
    "global of a long name": b"\x80\x04\x8c\x01mX\xe8\x03\0\0" + b"n" * 1000 + b"\x93.",
    "dtype of no name": b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n((X\x07\0\0\0storagectorch\nFloatStorage\n"
    b"X\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89NK\x05tR.",
}


@pytest.mark.parametrize("name", BAD_PICKLES)
def test_bad_pickles_leave_tensors_unknown(detected: Detect, name: str) -> None:
    layout = detected(archive_of(data_pkl=BAD_PICKLES[name], data__0=bytes(100)))
    assert layout is not None
    assert layout.tensors is None


def test_shared_structures_are_walked_once(detected: Detect) -> None:
    # Each level holds the one below twice: 2**60 paths.
    levels = b"".join(b"\x94h" + bytes([i]) + b"\x86" for i in range(60))
    layout = detected(archive_of(data_pkl=b"\x80\x04]" + levels + b"."))
    assert layout is not None
    assert layout.tensors == ()


def test_cycles_end(detected: Detect) -> None:
    loop: list[Any] = []
    loop.append(loop)
    layout = detected(archive_of(data_pkl=pickle.dumps(loop, 4)))
    assert layout is not None
    assert layout.tensors == ()


@pytest.mark.parametrize(("depth", "known"), [(200, True), (200_000, False)])
def test_deep_nesting(detected: Detect, depth: int, known: bool) -> None:
    layout = detected(archive_of(data_pkl=b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."))
    assert layout is not None
    assert layout.tensors == (() if known else None)


def test_too_many_aliases_are_not_listed(detected: Detect) -> None:
    source = zipfile.ZipFile(io.BytesIO(saved([torch.zeros(4)])))
    pickled = source.read("archive/data.pkl")
    many = pickled.removesuffix(b"a.") + b"q\x40a" + b"h\x40a" * 60_000 + b"."
    layout = detected(archive_of(data_pkl=many, data__0=bytes(16)))
    assert layout is not None
    assert layout.tensors is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"K\x00K\x04\x85", b"K\x09K\x04\x85"),  # offset past the storage
        (b"K\x00K\x04\x85", b"K\x00K\x05\x85"),  # more elements than the storage has
        (b"cpuq\x06K\x04", b"cpuq\x06K\x09"),  # storage larger than its member
    ],
)
def test_impossible_tensors_are_unknown(detected: Detect, old: bytes, new: bytes) -> None:
    source = zipfile.ZipFile(io.BytesIO(saved({"w": torch.zeros(4)})))
    pickled = source.read("archive/data.pkl")
    assert old in pickled
    layout = detected(archive_of(data_pkl=pickled.replace(old, new), data__0=bytes(16)))
    assert layout is not None
    assert layout.tensors is None


def test_members_that_lie_behind_the_end_are_left_out(tmp_path: Path) -> None:
    """No file is read at an offset that the system takes for none."""
    extra = struct.pack("<2HQ", 1, 8, (1 << 64) - 1)
    member = struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 0, 0, 0, 0, 4, 4, 10, len(extra), 0, 0, 0, 0, 0xFFFFFFFF)
    directory = member + b"x/data.pkl" + extra
    local = b"PK\3\4" + bytes(26)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, len(directory), len(local), 0)
    path = tmp_path / "model.pt"
    path.write_bytes(local + directory + end)
    with path.open("rb") as file:
        layout = detect(lambda offset, size: os.pread(file.fileno(), size, offset), path.stat().st_size)
    assert layout is not None
    assert (layout.tensors, layout.stretches) == (None, ())


def test_overlapping_members_are_unknown(detected: Detect) -> None:
    data = bytearray(archive_of(data_pkl=pickle.dumps({}), data__0=bytes(100), data__1=bytes(50)))
    assert detected(bytes(data)) is not None
    # The last directory entry now points where the one before it does.
    last = data.rfind(b"PK\x01\x02")
    before = data.rfind(b"PK\x01\x02", 0, last)
    data[last + 42 : last + 46] = data[before + 42 : before + 46]
    assert detected(bytes(data)) is None


@pytest.mark.parametrize("cut", [4, 21, 22, 100])
def test_truncated_files_are_unknown(detected: Detect, cut: int) -> None:
    assert detected(saved({"w": torch.zeros(400)})[:-cut]) is None


HOSTILE = """
import resource, sys
sys.path.insert(0, {root!r})
from shardfs.tensors.picklescan import scan
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for data in (b"}}" * (16 << 20), b"]" * (8 << 20), b"(" * (16 << 20), b"\\x80\\x04" + b"}}\\x94" * (8 << 20)):
    assert scan(data) is None
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_hostile_pickles_cost_bounded_memory() -> None:
    root = str(Path(__file__).parents[3])
    run = [sys.executable, "-c", HOSTILE.format(root=root)]
    assert int(subprocess.run(run, capture_output=True, text=True, check=True).stdout) < 200
