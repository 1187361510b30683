"""Contents by name: what they lack, and copies of them that need nothing from elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

import shardfs
from shardfs.errors import OutOfSpaceError, RemoteOfflineError
from shardfs.formats.ids import ChunkId
from shardfs.repository import Repository
from shardfs.store.index import LOCAL
from shardfs.transfer import contents
from tests.stores import flip

VERSIONS = 4


def _model(version: int) -> bytes:
    chance = np.random.default_rng(7)
    tensors = {name: chance.standard_normal((512, 512), dtype=np.float32) for name in ("a", "b", "c")}
    for _ in range(version):
        tensors["b"] *= 1 + np.float32(1e-4) * chance.standard_normal((512, 512), dtype=np.float32)
    data = save(tensors)
    assert isinstance(data, bytes)
    return data


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with versions of a model, each mostly differences to the one before."""
    folder = tmp_path_factory.mktemp("origin")
    with shardfs.init(folder) as repo:
        for version in range(VERSIONS):
            (folder / "model.safetensors").write_bytes(_model(version))
            repo.add([folder])
            repo.commit(f"version {version}")
    return folder / ".shardfs"


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Iterator[Repository]:
    with shardfs.clone(str(origin), tmp_path / "clone") as repo:
        yield repo


def _offline(clone: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Repository:
    """The same repository with no remote and an empty cache."""
    monkeypatch.setenv("SHARDFS_OFFLINE", "1")
    monkeypatch.setenv("SHARDFS_CACHE_DIR", str(tmp_path / "other-cache"))
    return Repository(clone.store_path)


def test_what_is_kept_needs_nothing_from_elsewhere(
    clone: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planned = clone.plan_fetch("origin", [("HEAD", "")])
    report = clone.fetch("origin", [("HEAD", "")])
    assert (report.kept, report.kept_bytes) == (planned.contents, planned.contents_bytes)
    ids = {
        chunk.id for chunk in contents.pick(clone._selected("HEAD", "")[1], clone.objects, clone.chunks).chunks.values()
    }
    assert report.kept > len(ids)  # what the differences are differences to came, too
    assert contents.lack(ids, clone.store.index, None) == (0, 0)
    assert clone.fetch("origin", [("HEAD", "")]).kept == 0
    with _offline(clone, monkeypatch, tmp_path) as repo:
        assert repo.read("HEAD:model.safetensors").read() == _model(VERSIONS - 1)
        assert repo.verify().problems == []


def test_plaintext_in_the_cache_is_not_what_is_kept(origin: Path, clone: Repository) -> None:
    planned = clone.plan_fetch("origin", [("HEAD", "")])
    with Repository(origin) as repo:
        for chunk in clone._picked("HEAD", "", None).chunks.values():
            clone.chunks.remember(ChunkId(chunk.id), repo.chunks.chunk(ChunkId(chunk.id), chunk.size))
    report = clone.fetch("origin", [("HEAD", "")])
    assert (report.kept, report.kept_bytes) == (planned.contents, planned.contents_bytes)


def test_one_tensor_of_one_version(clone: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = clone.plan_fetch("origin", [("HEAD", "")]).contents_bytes
    some = clone.fetch("origin", [("HEAD", "")], tensors="c").kept_bytes
    assert 0 < some < whole / 2
    what = r"model\.safetensors: \d+ of \d+ chunks"
    with _offline(clone, monkeypatch, tmp_path) as repo, pytest.raises(RemoteOfflineError, match=what):
        repo.read("HEAD:model.safetensors").read()


def test_a_chunk_that_is_damaged_at_one_remote_comes_from_another(
    origin: Path, clone: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(origin, tmp_path / "bad")
    for path in (tmp_path / "bad" / "packs").rglob("*.pack"):
        if path.stat().st_size > 100_000:
            flip(path, 50_000)
    clone.add_remote("bad", str(tmp_path / "bad"))
    clone.prefer_remote("bad")
    clone.fetch("bad")
    assert clone.store.index.packs("bad") == clone.store.index.packs("origin")
    clone.fetch("bad", [("HEAD", "")])
    with _offline(clone, monkeypatch, tmp_path) as repo:
        assert repo.read("HEAD:model.safetensors").read() == _model(VERSIONS - 1)


def test_a_full_fetch_from_a_damaged_remote_takes_packs_of_another(
    origin: Path, clone: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(origin, tmp_path / "bad")
    packs = sorted((tmp_path / "bad" / "packs").rglob("*.pack"), key=lambda path: path.stat().st_size)
    flip(packs[-1], 50_000)
    packs[-2].unlink()
    clone.add_remote("bad", str(tmp_path / "bad"))
    assert clone.fetch("bad", full=True).conflicts == []
    with _offline(clone, monkeypatch, tmp_path) as repo:
        assert repo.absent("HEAD") == repo.absent("HEAD~3") == []
        assert repo.verify().problems == []


def test_what_does_not_fit_is_refused_before_it_comes(clone: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(clone.store_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(OutOfSpaceError, match="are needed in"):
        clone.fetch("origin", [("HEAD", "")])
    assert clone.chunks.traffic.bytes == 0
    here = clone.store.index.packs(LOCAL)
    with pytest.raises(OutOfSpaceError, match="are needed in"):
        clone.fetch("origin", full=True)
    assert clone.store.index.packs(LOCAL) == here


def test_a_remote_that_is_renamed_is_still_read(clone: Repository) -> None:
    clone.rename_remote("origin", "source")
    assert clone.settings == replace(clone.settings, upstreams={"main": "source"})
    assert set(clone.remote_branches()) == {"source/main"}
    assert clone.read("HEAD:model.safetensors").read() == _model(VERSIONS - 1)
    assert clone.store.index.packs("origin") == {}
