"""Commits of versions of a model, killed again and again; run as `tests.faults.killing`, with the same output."""

from __future__ import annotations

import json
import random
import struct
from array import array
from pathlib import Path

from shardfs.formats.tree import FileEntry
from shardfs.repository import Repository
from shardfs.store.store import Store
from tests import areas
from tests.faults import killing

ROWS, COLUMNS = 300, 200


def version(number: int) -> bytes:
    """A safetensors file of two tensors of 240 KB, which move a little with each version."""
    chance = random.Random(1)
    weights = [array("f", (chance.gauss(0, 0.05) for _ in range(ROWS * COLUMNS))) for _ in range(2)]
    for seed in range(number):
        chance = random.Random(seed)
        for tensor in weights:
            for index in range(len(tensor)):
                tensor[index] += 1e-6 * chance.random()
    size = 4 * ROWS * COLUMNS
    header = {
        f"layer.{n}": {"dtype": "F32", "shape": [ROWS, COLUMNS], "data_offsets": [n * size, (n + 1) * size]}
        for n in range(2)
    }
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(tensor.tobytes() for tensor in weights)


VERSIONS = [version(number) for number in range(3)]


class Tune(killing.Operation):
    """A version written into staging and committed, after two others."""

    def prepare(self, root: Path) -> None:
        Store.create(root / "local").close()
        for data in VERSIONS[:2]:
            _commit(root / "local", data)

    def run(self, root: Path) -> None:
        _commit(root / "local", VERSIONS[2])


def _commit(store: Path, data: bytes) -> None:
    with Repository(store) as repo:
        area = repo.area("main")
        area.start_session("a test")
        areas.write(area, b"model.safetensors", data)
        repo.commit("version", branch="main", allow_empty=True)
        entry = repo.entry("main", "model.safetensors")
        assert isinstance(entry, FileEntry)
        assert repo.open_entry(entry).read_at(0, len(data)) == data
        assert ("delta1" in repo.file_facts(entry).codecs) == (data != VERSIONS[0])


killing.OPERATIONS["tune"] = Tune

if __name__ == "__main__":
    killing.main()
