"""Full fetches and mirrors that are killed, or whose remote packs anew meanwhile, over real servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import shardfs
from shardfs.repository import Repository
from shardfs.store.index import LOCAL
from tests.serving import Server, serving

pytestmark = pytest.mark.network

MIB = 1 << 20
VERSIONS = 6
# Ends itself without any warning once so many bytes came; small packs become durable one by one, as those of 64 MiB do.
_PROGRAM = """
import os, signal, sys
import shardfs
from shardfs.transfer import download

download._TOGETHER = 1
what, url, path, limit = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])

def progress(done, total, name):
    if done > limit:
        os.kill(os.getpid(), signal.SIGKILL)

if what == "mirror":
    shardfs.mirror(url, path, progress=progress)
else:
    shardfs.clone(url, path, full=True, progress=progress)
"""


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Repository]:
    """A repository of versions of 1 MiB, each in a pack of its own, in the folder of a server."""
    work = tmp_path / "work"
    work.mkdir()
    with shardfs.init(tmp_path / "srv" / "demo", bare=True) as repo:
        for version in range(VERSIONS):
            (work / "model.bin").write_bytes(os.urandom(MIB))
            repo.import_directory(work, f"version {version}")
        yield repo


@pytest.fixture
def server(tmp_path: Path, source: Repository) -> Iterator[Server]:
    with serving(tmp_path / "srv") as running:
        yield running


def _killed(what: str, url: str, path: Path, limit: int) -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, what, url, str(path), str(limit)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def _packs(store: Path) -> dict[str, int]:
    return {found.stem: found.stat().st_size for found in (store / "packs").rglob("*.pack")}


@pytest.mark.parametrize("what", ["clone", "mirror"])
def test_a_killed_copy_goes_on_with_the_pack_it_was_copying(
    what: str, source: Repository, server: Server, tmp_path: Path
) -> None:
    url, copy = f"{server.url}/demo", tmp_path / "copy"
    store = copy / ".shardfs" if what == "clone" else copy
    came = 3 * MIB + MIB // 2
    _killed(what, url, copy, came)
    here = _packs(store)
    assert sum(here.values()) >= came - 2 * MIB  # the pack that was being written, and the range that told
    left: list[int] = []

    def note(done: int, _total: int | None, _name: str) -> None:
        left.append(done)

    if what == "clone":
        shardfs.clone(url, copy, full=True, progress=note).close()
    else:
        shardfs.mirror(url, copy, progress=note)
    total = _packs(source.store_path)
    assert _packs(store).items() >= total.items()
    assert max(left) == sum(total.values()) - sum(here.values())
    with Repository(store) as repo:
        assert repo.resolve("HEAD") == source.resolve("HEAD")
        assert repo.verify().problems == []


def test_readers_of_a_mirror_see_the_old_state_or_the_new(source: Repository, server: Server, tmp_path: Path) -> None:
    url, copy = f"{server.url}/demo", tmp_path / "mirrors" / "demo"
    shardfs.mirror(url, copy)
    old = source.resolve("HEAD")
    for version in range(3):
        (tmp_path / "work" / "model.bin").write_bytes(os.urandom(MIB))
        source.import_directory(tmp_path / "work", f"later {version}")
    for limit in (MIB, 2 * MIB):
        _killed("mirror", url, copy, limit)
        with serving(tmp_path / "mirrors") as served:
            shardfs.clone(f"{served.url}/demo", tmp_path / f"from-{limit}", full=True).close()
        with shardfs.open(tmp_path / f"from-{limit}") as repo:
            assert repo.resolve("HEAD") == old
            assert repo.verify().problems == []
    shardfs.mirror(url, copy)
    with Repository(copy) as repo:
        assert repo.resolve("HEAD") == source.resolve("HEAD")


def test_a_server_that_packs_anew_in_the_middle(source: Repository, server: Server, tmp_path: Path) -> None:
    old = set(source.store.index.packs(LOCAL))

    def pack_anew(done: int, _total: int | None, _name: str) -> None:
        if done > MIB and old == set(source.store.index.packs(LOCAL)):
            source.optimize(grace_s=0)

    with shardfs.clone(f"{server.url}/demo", tmp_path / "copy", full=True, progress=pack_anew) as repo:
        assert not old & set(source.store.index.packs(LOCAL))
        assert repo.resolve("HEAD") == source.resolve("HEAD")
        tip = repo.resolve("HEAD")
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(20)
    with shardfs.open(tmp_path / "copy") as repo:
        assert repo.resolve("HEAD") == tip
        assert repo.absent("HEAD") == repo.absent(f"HEAD~{VERSIONS - 1}") == []
        assert repo.verify().problems == []


def test_a_tensor_brings_about_its_stored_bytes(tmp_path: Path) -> None:
    chance = np.random.default_rng(5)
    work = tmp_path / "work"
    work.mkdir()
    save_file(
        {f"layer.{i}.weight": chance.standard_normal((1024, 1024), dtype=np.float32) for i in range(12)},
        work / "model.safetensors",
    )
    with shardfs.init(tmp_path / "srv" / "demo", bare=True) as repo:
        repo.import_directory(work, "a model of 48 MiB")
    with serving(tmp_path / "srv") as server, shardfs.clone(f"{server.url}/demo", tmp_path / "copy") as repo:
        before = repo.reader.traffic.bytes + repo.chunks.traffic.bytes
        found = repo.prefetch("HEAD", tensors="layer.7.*")
        came = repo.reader.traffic.bytes + repo.chunks.traffic.bytes - before
        assert found.tensors == 1
        assert 3 * MIB < found.fetched_bytes < 5 * MIB
        assert came < found.fetched_bytes + MIB  # and the chunk of the header
        kept = repo.fetch("origin", [("HEAD", "model.safetensors")], tensors="layer.3.*")
        assert 3 * MIB < kept.kept_bytes < 5 * MIB
