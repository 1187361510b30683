"""Names, links, sizes and clocks that nobody wishes for, committed and read through a mount."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, Tree
from tests.mount.conftest import Mounted, add_commit, eventually, make_project, mounting, private_folders

pytestmark = pytest.mark.fuse

NAMES = [
    "line\nbreak",
    "caf\udce9",
    "n" * 255,
    "ä" * 127,
    "Case",
    "case",
    "CASE",
    " ",
    "-rf",
    "...",
    "..a",
    "a\\b",
    "\x01\x7f",
    "tab\t",
    "%2e%2e",
    "C:",
    "nul",
    "a" + "\u0301",
    "\u00e1",
    "\u202eoverridden",
]
HUGE = 1 << 36


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp("names")
    with private_folders(home):
        make_project(folder / "project", {"first": b"first"})
    with mounting(folder / "project", folder / "models", home) as found:
        yield found


def test_names_of_files_and_directories(mounted: Mounted, home: Path, tmp_path: Path) -> None:
    for name in NAMES:
        folder = mounted.staging / "names" / name
        folder.mkdir(parents=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    mounted.commit("names")
    for top in (mounted.latest, mounted.staging):
        assert sorted(os.listdir(top / "names")) == sorted(NAMES)
        for name in NAMES:
            assert (top / "names" / name / name).read_bytes() == name.encode("utf-8", "surrogateescape")
    with private_folders(home), shardfs.open(mounted.project) as repo:
        repo.checkout("HEAD", into=tmp_path / "out")
    assert sorted(os.listdir(tmp_path / "out" / "names")) == sorted(NAMES)
    command = [sys.executable, "-m", "shardfs_cli", "ls", "-R", "HEAD", "names"]
    listed = subprocess.run(command, cwd=mounted.project, capture_output=True, check=True)
    assert b"\x01" not in listed.stdout  # a terminal is shown no control characters
    assert listed.stdout.count(b"\n") == 2 * len(NAMES)


def test_links_are_shown_and_followed_by_nobody_but_the_kernel(mounted: Mounted, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (mounted.staging / "out").symlink_to(tmp_path / "secret")
    (mounted.staging / "up").symlink_to("../" * 40 + "etc")
    (mounted.staging / "loop").symlink_to("loop")
    mounted.commit("links")
    assert (mounted.latest / "out").readlink() == tmp_path / "secret"
    assert (mounted.latest / "loop").readlink() == Path("loop")
    with shardfs.open(mounted.project) as repo:
        entries = {entry.name: entry for entry in repo.entries("HEAD") if isinstance(entry, LinkEntry)}
        assert entries.keys() == {b"out", b"up", b"loop"}
        assert entries[b"out"].target == os.fsencode(tmp_path / "secret")
        assert not any(isinstance(e, FileEntry | DirEntry) and e.name in entries for e in repo.entries("HEAD"))


def test_an_empty_file_and_a_huge_sparse_one(mounted: Mounted) -> None:
    """Zeros take no room, and a hole is not read to find that out.

    2 TiB take 44 s, 600 MB of memory and 80 KB of disk.
    """
    (mounted.staging / "empty").touch()
    with (mounted.staging / "sparse").open("wb") as file:
        file.truncate(HUGE)
        file.seek(HUGE // 2)
        file.write(b"in the middle")
    before = sum(path.stat().st_size for path in (mounted.project / ".shardfs" / "packs").rglob("*.pack"))
    mounted.commit("sizes")
    after = sum(path.stat().st_size for path in (mounted.project / ".shardfs" / "packs").rglob("*.pack"))
    assert after - before < 1 << 20
    assert (mounted.latest / "empty").read_bytes() == b""
    with (mounted.latest / "sparse").open("rb") as file:
        assert os.fstat(file.fileno()).st_size == HUGE
        assert file.read(100) == bytes(100)
        file.seek(HUGE // 2 - 2)
        assert file.read(20) == b"\0\0in the middle" + bytes(5)
        file.seek(-5, os.SEEK_END)
        assert file.read() == bytes(5)
    (mounted.staging / "sparse").unlink()


def test_a_clock_that_was_set_back_between_commits(mounted: Mounted, home: Path) -> None:
    """The order of versions is that of parents, and a changed file has another time in any case."""
    times = [10**15, 10**15 - 10**12, 1, 10**15 + 5]  # microseconds
    with private_folders(home), shardfs.open(mounted.project) as repo:
        begin = len(repo.versions())
        for number, time_us in enumerate(times):
            assert repo.root is not None
            (repo.root / "clock").write_text(f"{number}\n")
            repo.add([repo.root / "clock"])
            tip = repo.commit(f"clock {number}", time_us=time_us).hex()
    assert eventually(lambda: mounted.latest.readlink().name == tip, 5)
    versions = sorted(os.listdir(mounted.point / "versions"))[begin:]
    shown = [mounted.point / "versions" / name / "clock" for name in versions]
    assert [path.read_text() for path in shown] == [f"{number}\n" for number in range(len(times))]
    assert [path.stat().st_mtime_ns for path in shown] == [1000 * time_us for time_us in times]
    assert add_commit_again(mounted, home) == "4\n"


def add_commit_again(mounted: Mounted, home: Path) -> str:
    """Commits of today follow those of any time."""
    with private_folders(home), shardfs.open(mounted.project) as repo:
        tip = add_commit(repo, {"clock": b"4\n"}, "today")
    assert eventually(lambda: mounted.latest.readlink().name == tip, 5)
    return (mounted.latest / "clock").read_text()


def test_a_tree_that_names_a_parent_is_refused() -> None:
    for name in (b"..", b".", b"a/b", b"", b"n" * 256, b"a\0b"):
        with pytest.raises(shardfs.errors.MalformedError):
            Tree.of([FileEntry(name, 0)])
