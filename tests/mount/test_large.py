"""Many entries, many commits, and a mount without a repository."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.formats.commit import Commit
from shardfs.formats.ids import Kind
from shardfs.formats.tree import DirEntry, FileEntry, Tree
from shardfs.mount import session
from tests.mount.conftest import Mounted, add_commit, eventually, make_project, mounting, private_folders
from tests.serving import serving

pytestmark = [pytest.mark.fuse, pytest.mark.slow]

ENTRIES = 100_000
COMMITS = 10_000


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Mounted]:
    """A directory of 100 000 files in the last of 10 000 commits."""
    folder = tmp_path_factory.mktemp("large")
    project = folder / "project"
    with private_folders(home), shardfs.init(project) as repo:
        with repo.store.batch("test") as batch:
            many = Tree.of([FileEntry(b"file-%06d" % n, 0) for n in range(ENTRIES)])
            batch.put(Kind.TREE, many.to_bytes())
            tree = Tree.of([DirEntry(b"many", many.id)])
            batch.put(Kind.TREE, tree.to_bytes())
            tip = None
            for number in range(COMMITS):
                commit = Commit(tree.id, (tip,) if tip else (), "A Tester", 10**15 + number, f"commit {number}")
                tip = commit.id
                batch.put(Kind.COMMIT, commit.to_bytes())
        repo.store.refs.move("refs/heads/main", None, tip)
    with mounting(project, folder / "models", home) as found:
        yield found


def test_a_large_directory_is_listed_once_and_completely(mounted: Mounted) -> None:
    for folder in (mounted.latest / "many", mounted.staging / "many"):
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
        assert len(names) == len(set(names)) == ENTRIES
        assert {names[0], names[-1]} <= {f"file-{n:06d}" for n in range(ENTRIES)}
    assert (mounted.latest / "many" / "file-099999").stat().st_size == 0


def test_a_listing_can_be_continued_from_any_position(mounted: Mounted) -> None:
    """What telldir and seekdir do: a second pass over the same descriptor sees everything again."""
    fd = os.open(mounted.latest / "many", os.O_RDONLY)
    try:
        assert len(os.listdir(fd)) == len(os.listdir(fd)) == ENTRIES
    finally:
        os.close(fd)


def test_ten_thousand_commits_are_listed_in_bounded_time(mounted: Mounted) -> None:
    times = []
    for _ in range(3):
        begin = time.monotonic()
        names = os.listdir(mounted.point / "commits")
        times.append(time.monotonic() - begin)
        assert len(names) == COMMITS
    assert min(times) < 1.0
    assert len(os.listdir(mounted.point / "versions")) == COMMITS


def test_a_remote_is_mounted_without_a_clone(tmp_path: Path) -> None:
    root, point = tmp_path / "root", tmp_path / "models"
    root.mkdir()
    data = os.urandom(2 << 20)
    project = tmp_path / "project"
    first = make_project(project, {"big.bin": data})
    with serving(root) as server, shardfs.open(project) as repo:
        url = f"{server.url}/demo"
        repo.add_remote("origin", url)
        repo.push("origin")
        record = session.mount(point, url, remote=True)
        try:
            assert record.read_only
            assert sorted(os.listdir(point)) == ["branches", "commits", "latest", "tags", "versions"]
            assert (point / "latest" / "big.bin").read_bytes() == data
            assert os.getxattr(point / "latest" / "big.bin", "user.shardfs.cached") == b"%d" % len(data)
            with pytest.raises(OSError, match="Read-only"):
                (point / "new").touch()
            second = add_commit(repo, {"a.txt": b"second\n"}, "second")
            repo.push("origin")
            assert eventually(lambda: (point / "latest").readlink().name == second, 10)
            assert (point / "commits" / first / "big.bin").read_bytes() == data
            server.process.kill()
            assert (point / "latest" / "big.bin").read_bytes() == data
            server.killed = True
        finally:
            session.unmount(point, force=True)


def test_bytes_of_a_dead_remote_are_an_error_and_not_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_DEADLINE", "1")
    root, point = tmp_path / "root", tmp_path / "models"
    root.mkdir()
    make_project(tmp_path / "project", {"big.bin": os.urandom(2 << 20)})
    with serving(root) as server, shardfs.open(tmp_path / "project") as repo:
        repo.add_remote("origin", f"{server.url}/demo")
        repo.push("origin")
        session.mount(point, f"{server.url}/demo", remote=True)
        try:
            server.kill()
            server.process.wait()
            begin = time.monotonic()
            with pytest.raises(OSError, match="Input/output error"):
                (point / "latest" / "big.bin").read_bytes()
            assert time.monotonic() - begin < 15
            assert "EIO" in (point / ".shardfs" / "errors").read_text()
            assert "latest" in os.listdir(point)
        finally:
            session.unmount(point, force=True)
