"""Small series of model files whose tensors move like weights in training, and repositories that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from shardfs.formats.ids import CommitId
from shardfs.formats.tree import FileEntry
from shardfs.history import paths
from shardfs.history.walk import ancestors
from shardfs.repository import Repository
from shardfs.store import chains

ROWS, COLUMNS = 192, 128  # one tensor is one chunk of 96 KiB, and a model too large to be taken for a small file
Weights = dict[str, "np.ndarray[tuple[int, int], np.dtype[np.float32]]"]


def weights(seed: int, tensors: int = 3) -> Weights:
    """The weights of a model before training."""
    chance = np.random.default_rng(seed)
    return {f"layer.{n}": chance.normal(0, 0.05, (ROWS, COLUMNS)).astype(np.float32) for n in range(tensors)}


def trained(before: Weights, seed: int, names: tuple[str, ...] | None = None) -> Weights:
    """The weights after a step of training of all tensors, or of some."""
    chance = np.random.default_rng(seed)
    return {
        name: (values + chance.normal(0, 1e-4, values.shape)).astype(np.float32)
        if names is None or name in names
        else values
        for name, values in before.items()
    }


def series(seed: int, count: int) -> list[Weights]:
    """Versions of a model, each a step after the one before."""
    found = [weights(seed)]
    while len(found) < count:
        found.append(trained(found[-1], 1000 * seed + len(found)))
    return found


def root(repo: Repository) -> Path:
    """The work tree."""
    assert repo.root is not None
    return repo.root


def write(repo: Repository, files: Mapping[str, Weights | bytes]) -> list[Path]:
    """Write models and other files into the work tree; returns their paths."""
    found = []
    for name, content in files.items():
        path = root(repo) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else save(content, {"format": "pt"}))
        found.append(path)
    return found


def commit(repo: Repository, files: Mapping[str, Weights | bytes], message: str = "a version") -> CommitId:
    """Add files and make a commit."""
    repo.add(write(repo, files))
    return repo.commit(message, author="A Tester <tester@example.org>")


def contents(repo: Repository) -> dict[str, bytes]:
    """All files of all versions that branches and tags reach, read from packs."""
    with Repository(repo.store_path) as fresh:  # with nothing in memory
        tips = fresh.store.refs.list().values()
        return {
            f"{id_.hex()[:12]}:{paths.show(path)}": b"".join(fresh.open_entry(entry).blocks())
            for id_, version in ancestors(fresh.objects, tips)
            for path, entry in paths.files(fresh.objects, version.tree)
        }


def depths(repo: Repository, rev: str) -> set[int]:
    """How many chunks must be decoded before each chunk of a revision."""
    ids = {
        chunk.id
        for _, entry in repo.walk(rev)
        if isinstance(entry, FileEntry)
        for chunk in repo.open_entry(entry).manifest.chunks
    }
    known = chains.of_index(repo.store.index)
    known.learn(ids)
    return {known.depth(id_) for id_ in ids}


def stored_files(repo: Repository) -> dict[str, bytes]:
    """All files of a store, without databases and locks."""
    return {
        str(path.relative_to(repo.store_path)): path.read_bytes()
        for path in sorted(repo.store_path.rglob("*"))
        if path.is_file() and ".sqlite" not in path.name and path.name != "lock"
    }


def pack_bytes(repo: Repository) -> int:
    """Bytes of all packs."""
    return sum(path.stat().st_size for path in (repo.store_path / "packs").rglob("*.pack"))
