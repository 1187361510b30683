"""Small models for tests: tensors, steps of training, and the files that hold them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from shardfs.formats.ids import ChunkId
from shardfs.formats.manifest import Manifest
from shardfs.formats.tree import FileEntry
from shardfs.history.content import manifest_of
from shardfs.repository import Repository
from shardfs.staging.adding import AddReport

State = dict[str, torch.Tensor]


def model(seed: int = 0, rows: int = 2000, dtype: torch.dtype = torch.float32) -> State:
    """Weights of 2 MB in fp32: an embedding of `rows` rows of 512 bytes, two layers, small biases."""
    chance = torch.Generator().manual_seed(seed)
    made = {"embed.weight": torch.randn(rows, 128, generator=chance)}
    for layer in range(2):
        made[f"layer.{layer}.weight"] = torch.randn(256, 512, generator=chance)
        made[f"layer.{layer}.bias"] = torch.randn(256, generator=chance)
    return {name: (tensor * 0.05).to(dtype) for name, tensor in made.items()}


def tuned(state: State, seed: int = 1, step: float = 2e-6) -> State:
    """The same weights after a little training: all moved by less than `step`, in fp32 some 100 steps of the last bit.

    An fp32 difference takes about a third of the bytes, weights of bf16 mostly stay as they are.
    """
    chance = torch.Generator().manual_seed(seed)
    return {
        name: (tensor.float() + step * (2 * torch.rand(tensor.shape, generator=chance) - 1)).to(tensor.dtype)
        for name, tensor in state.items()
    }


def save(path: str | Path, state: Any) -> bytes:
    """Write a file by the suffix of its name; returns its bytes. Its time says that it is no longer written to."""
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.suffix == ".safetensors":
        save_file(state, place, metadata={"format": "pt"})
    else:
        torch.save(state, place)
    settle(place)
    return place.read_bytes()


def settle(path: Path) -> None:
    """Make a file a minute older: one that was written just now is read again by the next `add`."""
    now = path.stat().st_mtime_ns - 60 * 10**9
    os.utime(path, ns=(now, now))


def add(repo: Repository, *paths: str) -> AddReport:
    """Add and commit some paths."""
    report = repo.add(paths)
    repo.commit("version", allow_empty=True)
    return report


def content(repo: Repository, where: str) -> bytes:
    """The bytes at REV:PATH."""
    with repo.read(where) as file:
        return file.read()


def manifest(repo: Repository, where: str) -> Manifest:
    """The chunks of the file at REV:PATH."""
    rev, _, path = where.partition(":")
    entry = repo.entry(rev, path)
    assert isinstance(entry, FileEntry)
    return manifest_of(entry, repo.objects)


def depth(repo: Repository, id_: bytes) -> int:
    """How many chunks are decoded before a chunk, by the copy that is read first."""
    bases = repo.store.find(id_)[0].entry.bases
    return 1 + max(depth(repo, base) for base in bases) if bases else 0


def deepest(repo: Repository, where: str) -> int:
    """The depth of the deepest chunk of a file."""
    return max(depth(repo, chunk.id) for chunk in manifest(repo, where).chunks)


def deltas(repo: Repository, where: str) -> list[ChunkId]:
    """The chunks of a file that are stored as differences."""
    return [chunk.id for chunk in manifest(repo, where).chunks if repo.store.find(chunk.id)[0].entry.bases]
