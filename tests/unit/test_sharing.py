"""What a repository knows of its remotes."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest

import shardfs
from shardfs import config
from shardfs.errors import StoreError
from shardfs.store.index import Index
from shardfs.store.refs import RefStore
from shardfs.store.store import Store
from tests.stores import commit, noise


class _KilledError(BaseException):
    pass


@pytest.mark.parametrize("what", ["rename", "remove"])
def test_who_was_killed_does_the_same_again(what: str, tmp_path: Path) -> None:
    server = Store.create(tmp_path / "server")
    commit(server, {"a": noise(1, 1000)})
    tip = commit(server, {"a": noise(2, 1000)}, branch="other")
    server.close()
    for at in itertools.count(1):
        copy = tmp_path / f"copy-{at}"
        shardfs.clone(str(tmp_path / "server"), copy).close()
        is_done = _change(what, copy, at)
        if not is_done:
            _change(what, copy, None)
        with shardfs.open(copy) as repo:
            refs, index = repo.store.refs, repo.store.index
            if what == "rename":
                assert list(repo.remotes()) == ["new"]
                assert refs.get("refs/remotes/new/other") == tip
                assert len(index.packs("new")) == 2
            else:
                assert not repo.remotes()
                assert not refs.names("refs/remotes/new")
            assert not refs.names("refs/remotes/origin/")
            assert not index.packs("origin")
        if is_done:
            assert at > 4
            break


def test_who_is_preferred_is_asked_from_now_on(tmp_path: Path) -> None:
    server = Store.create(tmp_path / "server")
    commit(server, {"a": noise(1, 1000)})
    server.close()
    shutil.copytree(tmp_path / "server", tmp_path / "lan")
    with shardfs.clone(str(tmp_path / "server"), tmp_path / "copy") as repo:
        repo.add_remote("lan", str(tmp_path / "lan"))
        repo.fetch("lan")
        repo.prefer_remote("lan")
        with repo.read("HEAD:a") as file:
            assert file.read() == noise(1, 1000)
        attempts = repo.stats_snapshot()["remotes"].attempts
        assert not attempts.get("origin")


def test_a_remote_whose_password_cannot_be_kept_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with shardfs.init(tmp_path / "repo") as repo:
        with monkeypatch.context() as patch:
            patch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
            with pytest.raises(StoreError):
                repo.add_remote("origin", "https://me:secret@models.example.org/demo")
        assert config.load(repo.store_path / "config.toml").remotes == {}
        repo.add_remote("origin", "https://models.example.org/demo")


def _change(what: str, folder: Path, killed_at: int | None) -> bool:
    """Rename or remove origin, and be killed at a step (None: at none); whether that was done."""
    steps = itertools.count(1)

    def step(work: Any) -> Any:
        def run(*args: Any, **more: Any) -> Any:
            if next(steps) == killed_at:
                raise _KilledError
            return work(*args, **more)

        return run

    with shardfs.open(folder) as repo, pytest.MonkeyPatch.context() as patch:
        for owner, name in ((RefStore, "move"), (Index, "add_packs"), (Index, "remove_packs"), (config, "_replace")):
            patch.setattr(owner, name, step(getattr(owner, name)))
        try:
            if what == "rename":
                repo.rename_remote("origin", "new")
            else:
                repo.remove_remote("origin")
        except _KilledError:
            return False
        return True
