"""Status and add of a work tree that did not change, and of one that changed a little."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.formats.tree import Tree
from shardfs.repository import Repository
from shardfs.staging.source import RACY_NS

FILES = ("a", "d/b", "d/c", "d/e/f", "g/h")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "d/link").symlink_to("b")
    time.sleep(RACY_NS / 1e9)
    with shardfs.init(tmp_path) as repo:
        repo.add([tmp_path])
        repo.commit("first")
        assert differences(repo) == ([], [], [])  # learns
    return tmp_path


@pytest.fixture
def repo(root: Path) -> Iterator[Repository]:
    with shardfs.open(root) as opened:
        yield opened


def differences(repo: Repository) -> tuple[list[str], list[str], list[str]]:
    status = repo.status()
    return status.modified, status.missing, status.untracked


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Trees that were loaded."""
    loaded: list[bytes] = []
    original = Tree.from_bytes

    def noting(data: bytes) -> Tree:
        loaded.append(data)
        return original(data)

    monkeypatch.setattr(Tree, "from_bytes", noting)
    return loaded


def test_an_unchanged_tree_is_neither_read_nor_loaded(repo: Repository, root: Path, parsed: list[bytes]) -> None:
    assert differences(repo) == ([], [], [])
    report = repo.add([root])
    assert (report.files, report.unchanged, report.bytes_read) == (0, len(FILES) + 1, 0)
    assert parsed == []


def rewrite(root: Path) -> None:
    (root / "d/b").write_text("D/B")


def replace_link(root: Path) -> None:
    (root / "d/link").unlink()
    (root / "d/link").symlink_to("c")


def make_executable(root: Path) -> None:
    (root / "d/b").chmod(0o755)


def turn_into_link(root: Path) -> None:
    (root / "d/b").unlink()
    (root / "d/b").symlink_to("c")


def add_beside(root: Path) -> None:
    (root / "d/new").write_text("new")


def add_folder(root: Path) -> None:
    (root / "d/n/n").mkdir(parents=True)
    (root / "d/n/n/x").write_text("x")


def remove_folder(root: Path) -> None:
    (root / "d/e/f").unlink()
    (root / "d/e").rmdir()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (rewrite, (["d/b"], [], [])),
        (replace_link, (["d/link"], [], [])),
        (make_executable, (["d/b"], [], [])),
        (turn_into_link, (["d/b"], [], [])),
        (add_beside, ([], [], ["d/new"])),
        (add_folder, ([], [], ["d/n/"])),
        (lambda root: (root / "d/c").unlink(), ([], ["d/c"], [])),
        (lambda root: (root / "d/link").unlink(), ([], ["d/link"], [])),
        (remove_folder, ([], ["d/e/f"], [])),
        (lambda root: (root / "d/c").rename(root / "d/z"), ([], ["d/c"], ["d/z"])),
    ],
)
def test_a_change_is_seen_and_stays_seen(
    repo: Repository, root: Path, change: Callable[[Path], None], expected: tuple[list[str], list[str], list[str]]
) -> None:
    change(root)
    assert differences(repo) == expected
    assert differences(repo) == expected
    repo.add([root], update_deleted=True)
    assert differences(repo) == ([], [], [])
    repo.commit("second")
    for _ in range(2):
        assert differences(repo) == ([], [], [])


def test_times_alone_are_no_difference(repo: Repository, root: Path) -> None:
    os.utime(root / "d/b", (1, 1))
    assert differences(repo) == ([], [], [])
    assert repo.add([root]).files == 0


def test_what_staging_changed_is_seen(repo: Repository, root: Path) -> None:
    entry = repo.entry("HEAD", "a")
    area = repo.area()
    area.put_entry((b"d", b"b"), entry)
    assert differences(repo) == (["d/b"], [], [])
    area.remove((b"d", b"c"))
    assert differences(repo) == (["d/b"], [], ["d/c"])
    area.put_entry((b"g", b"more"), entry)
    repo.commit("through the mount")
    for _ in range(2):
        assert differences(repo) == (["d/b"], [], ["d/c"])
    repo.reset()
    repo.add([root])
    assert differences(repo) == ([], [], [])


def test_another_branch_is_compared_with_its_own_files(repo: Repository, root: Path) -> None:
    repo.switch("other", create=True)
    (root / "d/b").write_text("other")
    repo.add([root])
    repo.commit("other")
    repo.switch("main")
    for name in ("main", "other", "main"):
        repo.switch(name)
        for _ in range(2):
            assert differences(repo) == ([], [], [])
        assert (root / "d/b").read_text() == ("other" if name == "other" else "d/b")


def test_a_link_to_a_removed_file_is_missing_once_it_is_forgotten(repo: Repository, root: Path) -> None:
    (root / "d/c").unlink()
    repo.add([root / "d"], update_deleted=True)
    assert differences(repo) == ([], [], [])
    repo.reset()
    assert differences(repo) == ([], ["d/c"], [])


def test_a_part_of_a_folder_does_not_count_as_the_folder(repo: Repository, root: Path) -> None:
    (root / "d/new").write_text("new")
    assert repo.add([root / "d/b"]).unchanged == 1
    assert differences(repo) == ([], [], ["d/new"])
    assert repo.add([root / "d/*"]).files == 1
