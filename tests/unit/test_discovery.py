"""Where the repository of a directory is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from shardfs.discovery import find_store, work_tree
from shardfs.errors import RepositoryNotFoundError
from shardfs.store.store import Store


def _store(path: Path) -> Path:
    Store.create(path).close()
    return path


def test_from_the_top_and_from_below(tmp_path: Path) -> None:
    store = _store(tmp_path / "p/.shardfs")
    (tmp_path / "p/a/b").mkdir(parents=True)
    for start in ("p", "p/a/b", "p/.shardfs", "p/.shardfs/packs", "p/missing/dir"):
        assert find_store(tmp_path / start) == store
    assert work_tree(store) == tmp_path / "p"


def test_the_nearest_one_counts(tmp_path: Path) -> None:
    _store(tmp_path / ".shardfs")
    inner = _store(tmp_path / "a/.shardfs")
    assert find_store(tmp_path / "a") == inner


def test_a_bare_store(tmp_path: Path) -> None:
    store = _store(tmp_path / "bare")
    assert find_store(store / "packs") == store
    assert work_tree(store) is None


def test_no_store(tmp_path: Path) -> None:
    (tmp_path / ".shardfs").mkdir()
    (tmp_path / "config.toml").touch()
    with pytest.raises(RepositoryNotFoundError, match="shardfs init"):
        find_store(tmp_path)


def test_a_neighbour_is_not_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-C ../other` from inside a repository must not find that repository."""
    _store(tmp_path / "p/.shardfs")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "p")
    with pytest.raises(RepositoryNotFoundError):
        find_store(Path("../other"))
    assert find_store(Path("../p")) == tmp_path / "p/.shardfs"
    (tmp_path / "link").symlink_to("other")
    with pytest.raises(RepositoryNotFoundError):
        find_store(Path("../link/../other"))


def test_a_mount_names_its_repository(tmp_path: Path) -> None:
    store = _store(tmp_path / "p/.shardfs")
    mount = tmp_path / "m"
    (mount / ".shardfs").mkdir(parents=True)
    (mount / "versions").mkdir()
    (mount / ".shardfs/config.json").write_text(json.dumps({"repository": os.fspath(store)}))
    assert find_store(mount / "versions") == store


def test_a_mount_of_a_remote_has_no_repository(tmp_path: Path) -> None:
    _store(tmp_path / ".shardfs")  # is not the one that the mount shows
    mount = tmp_path / "m"
    (mount / ".shardfs").mkdir(parents=True)
    (mount / ".shardfs/config.json").write_text('{"url": "http://example.org/demo"}')
    with pytest.raises(RepositoryNotFoundError, match=r"m shows http://example\.org/demo"):
        find_store(mount)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"repository": 5}', '{"repository": "/nowhere"}', '{"repository": "a\\u0000b"}', "\xff"]
)
def test_a_mount_that_names_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / ".shardfs").mkdir()
    (tmp_path / ".shardfs/config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RepositoryNotFoundError):
        find_store(tmp_path)


def test_a_dead_mount_counts_as_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = _store(tmp_path / ".shardfs")
    real = Path.is_file

    def dead(path: Path) -> bool:
        if path.is_relative_to(tmp_path / "dead"):
            raise OSError(107, "Transport endpoint is not connected")
        return real(path)

    monkeypatch.setattr(Path, "is_file", dead)
    assert find_store(tmp_path / "dead") == store
