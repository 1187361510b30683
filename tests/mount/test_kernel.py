"""What only the kernel engine can do: nodes by content, attributes for ever, and threads that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from tests.mount.conftest import (
    FRESH_S,
    Mounted,
    add_commit,
    eventually,
    make_project,
    mounting,
    private_folders,
    stopped,
)
from tests.stores import noise

pytestmark = pytest.mark.fuse

SAME = noise(1, 3 << 20)


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory, home: Path) -> Iterator[Mounted]:
    """Three versions; `d/same` is in all of them, `d/swapped` has the content of another file in the second."""
    folder = tmp_path_factory.mktemp("kernel")
    project = folder / "project"
    with private_folders(home):
        make_project(project, {"d/same": SAME, "d/swapped": b"one", "d/other": b"two"}, "one")
        with shardfs.open(project) as repo:
            add_commit(repo, {"d/swapped": b"two", "d/other": b"one"}, "two")
            add_commit(repo, {"d/more": b"more"}, "three")
    with mounting(project, folder / "models", home, engine="kernel") as found:
        yield found


def version(mounted: Mounted, name: str) -> Path:
    return (mounted.point / "versions" / name).resolve()


def test_a_file_that_did_not_change_is_read_once_for_all_versions(mounted: Mounted) -> None:
    assert (version(mounted, "0001-one") / "d" / "same").read_bytes() == SAME
    with (version(mounted, "0003-three") / "d" / "same").open("rb", buffering=0) as file, stopped(mounted):
        assert file.read() == SAME


def test_names_and_attributes_below_a_commit_are_asked_for_once(mounted: Mounted) -> None:
    folder = os.open(version(mounted, "0003-three"), os.O_RDONLY)
    try:
        before = [os.stat(name, dir_fd=folder) for name in ("d/same", "d/more")]
        with pytest.raises(FileNotFoundError):
            os.stat("d/missing", dir_fd=folder)
        time.sleep(1)  # more than the kernel keeps what may change
        with stopped(mounted):
            assert [os.stat(name, dir_fd=folder) for name in ("d/same", "d/more")] == before
            with pytest.raises(FileNotFoundError):
                os.stat("d/missing", dir_fd=folder)
    finally:
        os.close(folder)


def test_paths_of_one_content_share_a_time_and_others_never_do(mounted: Mounted) -> None:
    """What rsync and make rely on: a path has another time when it has another content."""
    one, two, three = (version(mounted, name) for name in ("0001-one", "0002-two", "0003-three"))
    assert (one / "d" / "same").stat() == (two / "d" / "same").stat() == (three / "d" / "same").stat()
    for name in ("swapped", "other"):
        assert (one / "d" / name).stat().st_mtime_ns != (two / "d" / name).stat().st_mtime_ns
    assert (one / "d" / "swapped").stat().st_ino == (two / "d" / "other").stat().st_ino


def test_directories_of_one_tree_stay_apart(mounted: Mounted) -> None:
    two, three = version(mounted, "0002-two"), version(mounted, "0003-three")
    inside = os.open(two / "d", os.O_RDONLY)
    try:
        assert sorted(os.listdir(three / "d")) == ["more", "other", "same", "swapped"]
        assert Path(f"/proc/self/fd/{inside}").readlink() == two / "d"
        assert sorted(os.listdir(inside)) == ["other", "same", "swapped"]
    finally:
        os.close(inside)
    short = mounted.point / "commits" / two.name[:12]
    assert (short / "d" / "same").stat().st_ino == (two / "d" / "same").stat().st_ino
    assert Path(os.path.realpath(two / "d")) == two / "d"


def test_a_file_without_a_name_has_attributes(mounted: Mounted) -> None:
    with (mounted.staging / "temp").open("w+b", buffering=0) as file:
        file.write(b"12345")
        (mounted.staging / "temp").unlink()
        assert os.fstat(file.fileno()).st_size == 5
        os.ftruncate(file.fileno(), 2)
        assert os.fstat(file.fileno()).st_size == 2


def test_deep_paths_are_not_limited(mounted: Mounted) -> None:
    """A path of 5 kB, one component at a time."""
    at = [os.open(mounted.staging, os.O_RDONLY)]
    try:
        for _ in range(25):
            os.mkdir("n" * 200, dir_fd=at[-1])
            at.append(os.open("n" * 200, os.O_RDONLY, dir_fd=at[-1]))
        file = os.open("file", os.O_CREAT | os.O_WRONLY, 0o600, dir_fd=at[-1])
        assert os.write(file, b"data") == 4
        os.close(file)
        assert os.stat("file", dir_fd=at[-1]).st_size == 4
        os.unlink("file", dir_fd=at[-1])
        for folder in reversed(at[:-1]):
            os.rmdir("n" * 200, dir_fd=folder)
    finally:
        for folder in at:
            os.close(folder)


def test_who_works_in_staging_stays_there_while_the_branch_moves(mounted: Mounted, home: Path) -> None:
    (mounted.staging / "work").mkdir()
    (mounted.staging / "work" / "log").write_bytes(b"log")
    before = os.open(mounted.staging / "work", os.O_RDONLY)
    try:
        with private_folders(home), shardfs.open(mounted.project) as repo:
            add_commit(repo, {"beside": b"1"}, "from elsewhere")
        assert eventually(lambda: (mounted.staging / "beside").exists(), FRESH_S)
        (mounted.staging / "work" / "log").write_bytes(b"more")
        mounted.commit("through the mount")
        assert Path(f"/proc/self/fd/{before}").readlink() == mounted.staging / "work"
        assert os.listdir(before) == ["log"]
        assert (mounted.staging / "work" / "log").read_bytes() == b"more"
    finally:
        os.close(before)


def test_a_thread_that_waits_for_a_name_can_be_killed(tmp_path: Path, home: Path) -> None:
    project = tmp_path / "project"
    with private_folders(home):
        make_project(project, {"a/b/c": b"c"})
    with mounting(project, tmp_path / "models", home, engine="kernel") as mounted:
        folder = mounted.latest.resolve()
        for pack in (project / ".shardfs" / "packs").rglob("*.pack"):  # trees cannot be read: for ever, not an error
            pack.unlink()
            os.mkfifo(pack)
        waits = "import os, sys; print('begin', flush=True); os.stat(sys.argv[1])"
        with subprocess.Popen([sys.executable, "-c", waits, folder / "a" / "b"], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begin\n"
            place = Path(f"/proc/{process.pid}/wchan")
            assert eventually(lambda: "fuse" in place.read_text() or "request_wait" in place.read_text(), 5)
            process.kill()
            process.wait(5)
        assert os.listdir(mounted.point / "branches") == ["main"]
