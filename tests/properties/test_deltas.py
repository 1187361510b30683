"""Whatever becomes of a model from version to version: every version of every file comes back."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import shardfs
from shardfs.formats.tree import FileEntry
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.repository import Repository
from shardfs.transfer.reader import Reader
from tests.weights import State, deepest, save, settle

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int8, torch.int64, torch.uint8)
ROW = 96  # elements
Edit = Callable[[State, random.Random], State]


def _values(rows: int, chance: random.Random, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(chance.getrandbits(30))
    return (torch.randn(rows, ROW, generator=generator) * chance.choice([0.05, 1.0, 40.0])).to(dtype)


def _one(state: State, chance: random.Random) -> str:
    return chance.choice(sorted(state))


def tune(state: State, chance: random.Random) -> State:
    step = chance.choice([1e-6, 1e-4, 1.0])
    return {n: (t.double() + step * _values(len(t), chance).double()).to(t.dtype) for n, t in state.items()}


def tune_one(state: State, chance: random.Random) -> State:
    name = _one(state, chance)
    return state | tune({name: state[name]}, chance)


def add_rows(state: State, chance: random.Random) -> State:
    name = _one(state, chance)
    old = state[name]
    at = chance.choice([0, len(old), chance.randrange(len(old) + 1)])
    fresh = _values(chance.choice([1, 3, 400]), chance, old.dtype)
    return state | {name: torch.cat([old[:at], fresh, old[at:]])}


def drop_rows(state: State, chance: random.Random) -> State:
    name = _one(state, chance)
    old = state[name]
    at, count = chance.choice([0, len(old) // 2]), chance.choice([1, 5, len(old) // 3])
    return state | {name: torch.cat([old[:at], old[at + count :]])}


def retype(state: State, chance: random.Random) -> State:
    name = _one(state, chance)
    return state | {name: state[name].to(chance.choice(DTYPES))}


def add_tensor(state: State, chance: random.Random) -> State:
    rows = chance.choice([1, 50, 700, 3000])
    return state | {f"{chance.choice('abc')}{chance.randrange(100)}.weight": _values(rows, chance)}


def drop_tensor(state: State, chance: random.Random) -> State:
    name = _one(state, chance)
    return {n: t for n, t in state.items() if n != name} if len(state) > 1 else state


def rename(state: State, chance: random.Random) -> State:
    name = _one(state, chance)
    return {(n + "_" if n == name else n): t for n, t in state.items()}


def shuffle(state: State, chance: random.Random) -> State:
    names = list(state)
    chance.shuffle(names)
    return {name: state[name] for name in names}


def swap(state: State, chance: random.Random) -> State:
    """Two tensors change places under their names."""
    one, other = _one(state, chance), _one(state, chance)
    return state | {one: state[other], other: state[one]}


def spoil(state: State, chance: random.Random) -> State:
    """NaNs, infinities, zeros, and a stretch that repeats."""
    name = _one(state, chance)
    spoilt = state[name].clone()
    if spoilt.is_floating_point():
        spoilt[:: chance.randrange(1, 9)] = chance.choice([float("nan"), float("inf"), -0.0])
    spoilt[len(spoilt) // 2 :] = 0
    return state | {name: spoilt}


EDITS: tuple[Edit, ...] = (
    tune,
    tune,
    tune_one,
    add_rows,
    add_rows,
    drop_rows,
    retype,
    add_tensor,
    drop_tensor,
    rename,
    shuffle,
    swap,
    spoil,
)
UPKEEP: tuple[Callable[[Repository], object], ...] = (
    lambda _: None,
    lambda _: None,
    lambda repo: repo.gc(grace_s=0),
    lambda repo: repo.optimize(grace_s=0),
)
CONTAINERS = ("model.safetensors", "model.pt", "other.pt", "wrapped.pt", "sparse.bin")
VERSION = st.tuples(st.lists(st.sampled_from(EDITS), max_size=3), st.lists(st.sampled_from(CONTAINERS), min_size=1))


def write(name: str, state: State, chance: random.Random) -> bytes:
    """A file of the weights; "sparse.bin" is no model file and has holes."""
    if name == "wrapped.pt":
        return save(name, {"epoch": chance.randrange(9), "model": state, "optimizer": {"exp_avg": state}})
    if name != "sparse.bin":
        return save(name, {key: tensor.contiguous() for key, tensor in state.items()})
    with Path(name).open("wb") as file:
        for tensor in state.values():
            file.write(tensor.contiguous().view(torch.uint8).numpy().tobytes())
            file.seek(chance.choice([0, 5000, 3 << 20]), os.SEEK_CUR)
        file.truncate(file.tell())
    settle(Path(name))
    return Path(name).read_bytes()


@contextmanager
def repository(depth: int) -> Iterator[Repository]:
    """A fresh one around the current directory, which it leaves again."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARDFS_CHAIN_DEPTH", str(depth))
        os.chdir(folder)
        try:
            with shardfs.init(Path(folder)) as made:
                yield made
        finally:
            os.chdir(before)


def files(repo: Repository, rev: str) -> dict[str, bytes]:
    """All files of a version, decoded from the packs alone."""
    reader = Reader(repo.store, budget_bytes=8 << 20)
    objects = Objects(reader)
    return {
        b"/".join(path).decode(): FileReader(entry, objects, reader).read_at(0, entry.size)
        for path, entry in repo.walk(rev)
        if isinstance(entry, FileEntry)
    }


@settings(max_examples=20)
@given(
    versions=st.lists(VERSION, min_size=2, max_size=6),
    depth=st.sampled_from([0, 1, 2, 8]),
    chance=st.randoms(use_true_random=False),
)
def test_every_version_of_every_file_comes_back(
    versions: list[tuple[list[Edit], list[str]]], depth: int, chance: random.Random
) -> None:
    state: State = {"a.weight": _values(800, chance), "b.weight": _values(300, chance), "c.bias": _values(1, chance)}
    with repository(depth) as repo:
        written: dict[str, bytes] = {}
        expected: dict[str, dict[str, bytes]] = {}
        for edits, names in versions:
            for edit in edits:
                state = edit(state, chance)
            written |= {name: write(name, state, chance) for name in names}
            repo.add(["."])
            expected[repo.commit("version", allow_empty=True).hex()] = dict(written)
            chance.choice(UPKEEP)(repo)
        for rev, content in expected.items():
            assert files(repo, rev) == content
            assert all(deepest(repo, f"{rev}:{name}") <= depth for name in content)
        assert repo.verify().problems == []
