"""Databases of a mounted repository in trouble: what is derived is made again, what is a fact is named."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import ShardfsError
from shardfs.mount import session
from shardfs.mount.options import MountOptions
from tests.mount.conftest import eventually, make_project, mounting, private_folders

pytestmark = pytest.mark.fuse

FILES = {f"file {number}": random.Random(number).randbytes(300_000) for number in range(4)}
LOCKED_S = 30.0  # SQLite's own patience with a locked database; nobody who reads waits for it


@pytest.fixture
def project(tmp_path: Path) -> Path:
    make_project(tmp_path / "project", FILES)
    return tmp_path / "project"


def _garbage(index: Path) -> None:
    index.write_bytes(os.urandom(index.stat().st_size))


def _cut(index: Path) -> None:
    os.truncate(index, index.stat().st_size // 2)


def _empty(index: Path) -> None:
    os.truncate(index, 0)


def _delete(index: Path) -> None:
    for path in index.parent.glob(f"{index.name}*"):
        path.unlink()


def _old_schema(index: Path) -> None:
    import sqlite3

    _delete(index)
    connection = sqlite3.connect(index)
    connection.execute("CREATE TABLE packs (name TEXT)")
    connection.execute("PRAGMA user_version = 1")
    connection.close()


def named(harm: Callable[[Path], None]) -> str:
    return harm.__name__.strip("_").replace("_", " ")


@pytest.mark.parametrize("harm", [_garbage, _cut, _empty, _delete, _old_schema], ids=named)
def test_a_mount_makes_the_index_again(project: Path, tmp_path: Path, harm: Callable[[Path], None]) -> None:
    harm(project / ".shardfs" / "index.sqlite")
    with mounting(project, tmp_path / "models", tmp_path / "home") as mounted:
        assert {name: (mounted.latest / name).read_bytes() for name in FILES} == FILES
        (mounted.staging / "new").write_bytes(b"new")
        mounted.commit("on the new index")
        assert (mounted.latest / "new").read_bytes() == b"new"


@pytest.mark.parametrize("harm", [_garbage, _cut, _empty, _delete], ids=named)
def test_a_live_mount_says_what_to_do_about_its_index_and_goes_on_then(
    project: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    with mounting(project, tmp_path / "models", tmp_path / "home") as mounted:
        assert (mounted.latest / "file 0").read_bytes() == FILES["file 0"]
        harm(project / ".shardfs" / "index.sqlite")
        try:
            assert (mounted.latest / "file 1").read_bytes() == FILES["file 1"]
        except OSError as error:
            assert error.errno == errno.EIO  # noqa: PT017 - either is right
            assert "index.sqlite" in mounted.errors()
            assert "shardfs doctor --rebuild-index" in mounted.errors()
        with shardfs.open(project) as repo:
            assert repo.rebuild_index() == []
        assert {name: (mounted.latest / name).read_bytes() for name in FILES} == FILES


def test_a_log_that_a_killed_daemon_left_and_somebody_deleted(project: Path, tmp_path: Path) -> None:
    with private_folders(tmp_path / "home"):
        record = session.mount(tmp_path / "models", project)
        (tmp_path / "models" / "staging" / "new").write_bytes(b"new")
        (tmp_path / "models" / ".shardfs" / "commit").write_text("before the kill")
        os.kill(record.pid, 9)
        assert eventually(lambda: record.status == "dead", 5)
        for suffix in ("-wal", "-shm"):
            (project / ".shardfs" / f"index.sqlite{suffix}").unlink(missing_ok=True)
    with mounting(project, tmp_path / "models", tmp_path / "home") as mounted:
        assert (mounted.latest / "new").read_bytes() == b"new"
        assert {name: (mounted.latest / name).read_bytes() for name in FILES} == FILES


def test_readers_do_not_wait_for_who_locks_the_index(project: Path, tmp_path: Path) -> None:
    program = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program, str(project / ".shardfs" / "index.sqlite")]
    with (
        mounting(project, tmp_path / "models", tmp_path / "home") as mounted,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other,
    ):
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        begin = time.monotonic()
        assert {name: (mounted.latest / name).read_bytes() for name in FILES} == FILES
        (mounted.staging / "new").write_bytes(b"new")
        assert time.monotonic() - begin < LOCKED_S
        other.kill()


def test_a_damaged_staging_area_is_named_and_commits_are_shown_without_it(project: Path, tmp_path: Path) -> None:
    with mounting(project, tmp_path / "models", tmp_path / "home") as mounted:
        (mounted.staging / "new").write_bytes(b"new")
    [area] = project.glob(".shardfs/staging/*/area.sqlite")
    _garbage(area)
    before = area.read_bytes()
    with private_folders(tmp_path / "home"), pytest.raises(ShardfsError, match=r"area\.sqlite"):
        session.mount(tmp_path / "models", project)
    assert area.read_bytes() == before
    with mounting(project, tmp_path / "models", tmp_path / "home", read_only=True) as mounted:
        assert {name: (mounted.latest / name).read_bytes() for name in FILES} == FILES


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("mounts a tmpfs, which takes root")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("leave", [0, 100_000, 3_000_000])
def test_a_disk_that_is_full_when_a_commit_comes(disk: Path, tmp_path: Path, leave: int) -> None:
    make_project(disk / "project", FILES)
    data = random.Random(9).randbytes(4 << 20)
    with mounting(disk / "project", tmp_path / "models", tmp_path / "home") as mounted:
        (mounted.staging / "new").write_bytes(data)
        tip = mounted.latest.readlink()
        status = os.statvfs(disk)
        with (disk / "filler").open("wb", buffering=0) as filler, suppress(OSError):
            filler.write(bytes(max(0, status.f_bavail * status.f_frsize - leave)))
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is tested
            mounted.commit("no room")
        assert caught.value.errno == errno.ENOSPC
        assert mounted.latest.readlink() == tip
        assert {name: (mounted.latest / name).read_bytes() for name in FILES} == FILES
        assert (mounted.staging / "new").read_bytes() == data
        (disk / "filler").unlink()
        mounted.commit("room again")
        assert (mounted.latest / "new").read_bytes() == data


def test_a_second_mount_on_one_mount_point_leaves_the_first_alone(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(project, other)
    with mounting(project, tmp_path / "models", tmp_path / "home") as mounted:
        with private_folders(tmp_path / "home"), pytest.raises(ShardfsError, match="already mounted"):
            session.mount(tmp_path / "models", other, MountOptions(read_only=True))
        with private_folders(tmp_path / "another"), pytest.raises(ShardfsError, match="already mounted"):
            session.mount(tmp_path / "models", other)
        assert (mounted.staging / "file 0").read_bytes() == FILES["file 0"]
