"""Clones that have no room, fail, are interrupted, or meet another one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import AlreadyExistsError, OutOfSpaceError, RemoteUnavailableError, RepositoryNotFoundError
from shardfs.repository import Repository
from tests.stores import commit, noise


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with shardfs.init(tmp_path / "project") as found:
        yield found


def test_a_clone_needs_room(repo: Repository, tmp_path: Path) -> None:
    for name in ("file", "folder/file"):
        place = tmp_path / "taken" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text("mine")
        target = place if name == "file" else place.parent
        with pytest.raises(AlreadyExistsError, match="not an empty directory"):
            shardfs.clone(str(repo.store_path), target)
        assert place.read_text() == "mine"


def test_a_failed_clone_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        shardfs.clone(str(tmp_path / "nowhere"), tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def test_what_late_requests_of_a_failed_clone_made_again_is_no_repository(repo: Repository, tmp_path: Path) -> None:
    tip = commit(repo.store, {"a": noise(1, 1000)})
    left = tmp_path / "copy" / ".shardfs"
    (left / "tmp" / "fetch").mkdir(parents=True)
    (left / "index.sqlite").touch()
    with shardfs.clone(str(repo.store_path), tmp_path / "copy", full=True) as copy:
        assert copy.head_commit() == tip
        assert copy.verify().ok
    taken = tmp_path / "taken" / ".shardfs"
    (taken / "packs").mkdir(parents=True)
    with pytest.raises(AlreadyExistsError, match="not an empty directory"):
        shardfs.clone(str(repo.store_path), tmp_path / "taken")


@pytest.mark.parametrize("cause", [KeyboardInterrupt(), RemoteUnavailableError("broken line"), OutOfSpaceError("full")])
def test_an_interrupted_clone_goes_on(
    cause: BaseException, repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.transfer.download._TOGETHER", 1)  # each pack becomes durable by itself
    for version in "12":
        commit(repo.store, {"a": noise(int(version), 1000)})
    sizes = sorted(repo.store.index.packs().values())
    received: list[int] = []

    def interrupt(done: int, _total: int | None, _name: str) -> None:
        if done == sum(sizes):
            raise cause

    with pytest.raises(type(cause)):
        shardfs.clone(str(repo.store_path), tmp_path / "copy", full=True, progress=interrupt)
    with pytest.raises(AlreadyExistsError):
        shardfs.clone(str(tmp_path / "other"), tmp_path / "copy")
    progress = lambda done, *_: received.append(done)  # noqa: E731 - shorter
    with shardfs.clone(str(repo.store_path), tmp_path / "copy", full=True, progress=progress) as copy:
        assert max(received) in sizes
        assert copy.verify().ok
        assert {p.name for p in (tmp_path / "copy").iterdir()} == {".shardfs"}


def test_a_clone_that_another_process_finishes_meanwhile_stays(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.commit("first", allow_empty=True)
    store = tmp_path / "copy" / ".shardfs"
    shardfs.clone(str(repo.store_path), tmp_path / "copy").close()
    (store / "unfinished").write_text("")

    def is_left(mark: Path, _: str) -> bool:
        mark.unlink()  # now the other one is done
        return True

    monkeypatch.setattr("shardfs.opening._is_left_by", is_left)
    with pytest.raises(AlreadyExistsError, match="by another process"):
        shardfs.clone(str(repo.store_path), tmp_path / "copy", branch="none")
    with shardfs.open(tmp_path / "copy") as copy:
        assert copy.verify().ok
    assert not (store / "unfinished").exists()
