"""A program maps a model of a remote and reads one tensor: hardly more than that comes over the network."""

from __future__ import annotations

import json
import mmap
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import shardfs
from shardfs.formats.tree import FileEntry
from shardfs.mount import session
from shardfs.mount.operating import Operating
from shardfs.repository import Repository
from shardfs.store.chains import of_index
from tests import models
from tests.serving import serving

pytestmark = [pytest.mark.fuse, pytest.mark.network, pytest.mark.usefixtures("engine")]

TENSORS, SHAPE = 16, (512, 512)  # of 1 MiB
MB = 1 << 20
FILE = "model.safetensors"
PROGRAM = """
import mmap, sys
path, start, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
    size = int.from_bytes(mapped[:8], "little")
    mapped[8 : 8 + size]
    for page in range(start // mmap.PAGESIZE * mmap.PAGESIZE, end, mmap.PAGESIZE):
        mapped[max(page, start)]
"""


@dataclass
class Series:
    """A repository with five trainings of a model on top of each other, in a folder that a server shows."""

    root: Path
    repo: Repository

    def extent(self, name: str) -> tuple[int, int]:
        """Where a tensor of the last version begins and ends."""
        data = (models.root(self.repo) / FILE).read_bytes()
        size = int.from_bytes(data[:8], "little")
        start, end = json.loads(data[8 : 8 + size])[name]["data_offsets"]
        return 8 + size + start, 8 + size + end

    def stored(self, start: int, end: int) -> int:
        """Encoded bytes behind the pages of a range, with all that they depend on."""
        entry = self.repo.entry("HEAD", FILE)
        assert isinstance(entry, FileEntry)
        page = mmap.PAGESIZE
        start, end = start // page * page, -(-end // page) * page
        ids = {span.chunk.id for span in self.repo.open_entry(entry).manifest.locate(start, end - start)}
        chains = of_index(self.repo.store.index)
        chains.learn(ids)
        needed = ids.union(*(chains.below(id_) for id_ in ids))
        return sum(found.stored_size for id_ in needed if (found := chains.entry(id_)))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Series]:
    folder = tmp_path_factory.mktemp("series")
    chance = np.random.default_rng(1)
    state = {f"layer.{n:02}": chance.normal(0, 0.05, SHAPE).astype(np.float32) for n in range(TENSORS)}
    with shardfs.init(folder / "project") as repo:
        for step in range(6):
            models.commit(repo, {FILE: state}, f"step {step}")
            state = models.trained(state, step)
        assert max(models.depths(repo, "HEAD")) == 5
        shutil.copytree(repo.store_path, folder / "srv" / "demo")
        yield Series(folder / "srv", repo)


@pytest.mark.parametrize("number", [0, 7, TENSORS - 1])
def test_one_tensor_takes_little_more_than_it_is_stored_in(series: Series, tmp_path: Path, number: int) -> None:
    start, end = series.extent(f"layer.{number:02}")
    with serving(series.root, "read-only") as server:
        operating = Operating(log=tmp_path / "log")
        point = session.mount(tmp_path / "models", f"{server.url}/demo", remote=True, operating=operating).mountpoint
        try:
            argv = [sys.executable, "-S", "-c", PROGRAM, str(point / "latest" / FILE), str(start), str(end)]
            subprocess.run(argv, check=True)
            came = json.loads((point / ".shardfs" / "stats.json").read_text())["reader"]["remote_bytes"]
        finally:
            session.unmount(point, force=True)
    assert came >= series.stored(start, end)
    assert came <= 1.1 * series.stored(start, end) + 4 * MB
