"""Writing to staging while the daemon is killed, the disk fills up and others commit; mappings whose daemon dies."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import shardfs
from shardfs.errors import ConflictError, NothingToCommitError
from shardfs.mount import records, session
from shardfs.mount.options import MountOptions
from tests.mount.conftest import FRESH_S, Mounted, eventually, make_project, mounting, stopped
from tests.stores import noise

pytestmark = pytest.mark.fuse

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="takes CAP_SYS_ADMIN")
ROUNDS = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "nightly" else 2
MIB = 1 << 20
DATA = noise(3, 6 * MIB)
WAYS: dict[str, dict[str, Any]] = {
    "by the kernel": {"engine": "kernel"},
    "by the daemon": {"engine": "kernel", "passthrough": False},
    "libfuse": {"engine": "libfuse"},
}

# Writes files of one byte value each, in place or anew, and says which ones are closed.
WRITER = """
import os, sys
folder, seed = sys.argv[1], int(sys.argv[2])
for number in range(1 << 30):
    value = bytes([1 + (seed + number) % 250])
    name = f"{folder}/file-{number % 3}"
    with open(name, "r+b" if number % 2 and os.path.exists(name) else "wb", buffering=0) as file:
        for _ in range(24):
            file.write(value * (1 << 17))
    print(number % 3, value[0], flush=True)
"""
MAPPER = """
import mmap, os, sys
with open(sys.argv[1], "rb") as file:
    view = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
view[0]
print("mapped", flush=True)
sys.stdin.readline()
view[len(view) - 1]
"""


@pytest.fixture(params=WAYS)
def options(request: pytest.FixtureRequest) -> MountOptions:
    """Who writes to the disk."""
    return MountOptions(**WAYS[request.param])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit, in the home of this test."""
    make_project(tmp_path / "project", {"model.bin": DATA})
    return tmp_path / "project"


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A mount point; whatever is mounted there at the end is taken away."""
    found = tmp_path / "models"
    yield found
    if any(record.mountpoint == found for record in session.list_mounts()):
        session.unmount(found, force=True)


def kill(pid: int) -> None:
    """End a daemon without last words."""
    os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: records.process_start(pid) is None, 5)


def commit(point: Path, message: str) -> None:
    with (point / ".shardfs" / "commit").open("w") as door:
        door.write(message)


# kill -9


def test_a_daemon_killed_during_writes_loses_no_closed_file_and_tears_none(
    project: Path, point: Path, options: MountOptions
) -> None:
    chance = random.Random(5)
    size = 24 << 17
    for seed in range(ROUNDS):
        record = session.mount(point, project, options)
        command = [sys.executable, "-c", WRITER, str(point / "staging"), str(seed)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as writer:
            assert writer.stdout is not None
            lines = [writer.stdout.readline() for _ in range(chance.randrange(4, 8))]
            time.sleep(chance.random() * 0.05)
            kill(record.pid)
            writer.kill()
            lines += [line for line in writer.stdout if line.endswith(b"\n")]
        closed = {int(number): int(value) for number, value in map(bytes.split, lines)}
        last = int(lines[-1].split()[1])
        session.mount(point, project, options)
        for number, value in closed.items():
            found = (point / "staging" / f"file-{number}").read_bytes()
            assert (len(found), len(set(found))) == (size, 1)
            # The next one may have been closed, and the writer ended before it could say so.
            assert found[0] in {value, *([value + 3] if value == last - 2 else [])}
        commit(point, f"after kill {seed}")
        for number in closed:
            path = f"file-{number}"
            assert (point / "latest" / path).read_bytes() == (point / "staging" / path).read_bytes()
        session.unmount(point)


def test_a_daemon_killed_right_after_close_loses_nothing(project: Path, point: Path, options: MountOptions) -> None:
    record = session.mount(point, project, options)
    names = ["model.bin", *map(str, range(20))]
    for data in (b"old", b"new"):
        files = [(point / "staging" / name).open("wb", buffering=0) for name in names]
        for file in files:
            file.write(data)
        for file in files:
            file.close()
    kill(record.pid)
    session.mount(point, project, options)
    assert {(point / "staging" / name).read_bytes() for name in names} == {b"new"}


def test_a_daemon_killed_during_a_commit_leaves_the_old_version_or_the_new_one(
    project: Path, point: Path, options: MountOptions
) -> None:
    chance = random.Random(7)
    versions, before = 1, DATA
    for seed in range(ROUNDS):
        record = session.mount(point, project, options)
        data = noise(20 + seed, 6 * MIB)
        (point / "staging" / "model.bin").write_bytes(data)

        def committing() -> None:
            with suppress(OSError):
                commit(point, "interrupted")

        thread = threading.Thread(target=committing)
        thread.start()
        time.sleep(chance.random() * 0.25)
        kill(record.pid)
        thread.join()
        session.mount(point, project, options)
        names = os.listdir(point / "versions")
        committed = (point / "latest" / "model.bin").read_bytes()
        assert (len(names), committed) in {(versions, before), (versions + 1, data)}
        assert (point / "staging" / "model.bin").read_bytes() == data
        with suppress(OSError):  # ENODATA where the new one is there
            commit(point, "again")
        assert (point / "latest" / "model.bin").read_bytes() == data
        session.unmount(point)
        versions, before = versions + 1, data


@AS_ROOT
def test_a_program_that_writes_on_after_the_daemon_died_changes_nothing(project: Path, point: Path) -> None:
    record = session.mount(point, project, MountOptions(engine="kernel"))
    file = (point / "staging" / "new").open("wb", buffering=0)
    file.write(b"x" * MIB)
    os.fsync(file.fileno())
    kill(record.pid)
    with suppress(OSError):
        file.write(b"too late")
        os.pwrite(file.fileno(), b"too late", 0)
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.fsync(file.fileno())
    session.mount(point, project)
    found = (point / "staging" / "new").read_bytes()
    with suppress(OSError):
        os.pwrite(file.fileno(), b"much too late", 0)
    commit(point, "after the kill")
    assert (point / "latest" / "new").read_bytes() == (point / "staging" / "new").read_bytes() == found
    with suppress(OSError):
        file.close()


@pytest.mark.parametrize("engine", ["kernel", "libfuse"])
def test_a_mapping_whose_daemon_died_is_a_bus_error(project: Path, point: Path, engine: str) -> None:
    record = session.mount(point, project, MountOptions(engine=engine, passthrough=False))  # type: ignore[arg-type]
    command = [sys.executable, "-c", MAPPER, str(point / "latest" / "model.bin")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == b"mapped\n"
        kill(record.pid)
        child.stdin.write(b"go on\n")
        child.stdin.close()
        assert child.wait(10) == -signal.SIGBUS
    session.unmount(point)


# Without the daemon


@AS_ROOT
def test_new_files_are_written_without_the_daemon(project: Path, point: Path, tmp_path: Path) -> None:
    with mounting(project, point, tmp_path / "home", engine="kernel") as mounted:
        for name in ("new", "model.bin"):
            with (mounted.staging / name).open("w+b", buffering=0) as file:
                file.write(DATA[: 1 << 17])  # the first one asks whether the file has capabilities
                with stopped(mounted):
                    for offset in range(1 << 17, len(DATA), 1 << 17):
                        file.write(DATA[offset : offset + (1 << 17)])
                    assert os.pread(file.fileno(), len(DATA), 0) == DATA
                assert os.fstat(file.fileno()).st_size == len(DATA)
                file.truncate(5 * MIB)
        mounted.commit("both")
        for name in ("new", "model.bin"):
            assert (mounted.latest / name).read_bytes() == DATA[: 5 * MIB]
        (mounted.staging / "new").write_bytes(b"again")
        assert (mounted.staging / "new").read_bytes() == b"again"


# A full disk


@AS_ROOT
@pytest.mark.parametrize("way", WAYS)
def test_a_full_disk_fails_the_writer_and_loses_nothing(tmp_path: Path, way: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "none", disk], check=True)
    try:
        make_project(disk / "project", {"model.bin": DATA})
        (disk / "project" / "model.bin").unlink()
        with mounting(disk / "project", tmp_path / "models", tmp_path / "home", **WAYS[way]) as mounted:
            (mounted.staging / "kept").write_bytes(DATA[:MIB])
            assert fill(mounted.staging / "large") == errno.ENOSPC
            assert fill(mounted.staging / "model.bin") == errno.ENOSPC
            assert (mounted.staging / "kept").read_bytes() == DATA[:MIB]
            for name in ("large", "model.bin"):
                (mounted.staging / name).unlink()
            (mounted.staging / "model.bin").write_bytes(DATA[MIB:])
            mounted.commit("there is room again")
            assert sorted(os.listdir(mounted.latest)) == ["kept", "model.bin"]
            assert (mounted.latest / "kept").read_bytes() == DATA[:MIB]
            assert (mounted.latest / "model.bin").read_bytes() == DATA[MIB:]
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(path: Path) -> int | None:
    """Write until the disk is full; the errno of that."""
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                file.write(DATA[:MIB])
    except OSError as error:
        return error.errno


# Commits at the same time


def test_commits_of_a_mount_and_of_a_command_make_one_line(
    project: Path, point: Path, tmp_path: Path, options: MountOptions
) -> None:
    rounds = 4
    done: list[str] = []

    def by_command() -> None:
        with shardfs.open(project) as repo:
            for number in range(rounds):
                (project / "command").write_bytes(b"%d" % number)
                repo.add([project / "command"])
                with suppress(NothingToCommitError, ConflictError):  # the mount took it along, or was first
                    done.append(repo.commit(f"command {number}").hex())

    with mounting(project, point, tmp_path / "home", **vars_of(options)) as mounted:
        thread = threading.Thread(target=by_command)
        thread.start()
        for number in range(rounds):
            (mounted.staging / "mount").write_bytes(noise(number, MIB))
            with suppress(OSError):
                done.append(mounted.commit(f"mount {number}"))
        thread.join()
        with suppress(OSError):
            mounted.commit("the rest")
        # The last ones may be in a commit of the command, which the mount sees soon.
        for name, last in (("mount", noise(rounds - 1, MIB)), ("command", b"%d" % (rounds - 1))):
            assert eventually(lambda n=name, d=last: (mounted.latest / n).read_bytes() == d, 5 * FRESH_S)  # type: ignore[misc]
        with shardfs.open(project) as repo:
            line = [version.commit.hex() for version in repo.versions()]
        assert set(done) <= set(line)
        assert len(done) >= rounds


def test_what_a_command_adds_and_commits_is_there_all_the_time(
    project: Path, point: Path, tmp_path: Path, options: MountOptions
) -> None:
    """The commit settles what was added, and gives it other inode numbers than those that the kernel knows."""
    (project / "folder").mkdir()
    (project / "folder" / "file").write_bytes(b"added")
    with mounting(project, point, tmp_path / "home", **vars_of(options)) as mounted, shardfs.open(project) as repo:
        repo.add([project / "folder"])
        folder = mounted.staging / "folder"
        assert (folder / "file").read_bytes() == b"added"
        repo.commit("a folder")
        assert (folder / "file").read_bytes() == b"added"
        assert os.listdir(folder) == ["file"]
        with pytest.raises(FileNotFoundError):
            (folder / "missing").stat()
        (folder / "new").mkdir()
        (folder / "file").chmod(0o755)


def test_a_file_that_is_written_during_commits_is_whole_in_each(
    project: Path, point: Path, tmp_path: Path, options: MountOptions
) -> None:
    with mounting(project, point, tmp_path / "home", **vars_of(options)) as mounted:
        stop = threading.Event()
        thread = threading.Thread(target=rewrite, args=(mounted, stop))
        thread.start()
        try:
            for number in range(4):
                (mounted.staging / "other").write_bytes(b"%d" % number)
                mounted.commit(f"commit {number}")
                found = (mounted.latest / "model.bin").read_bytes()
                assert found == DATA or len(set(found)) == 1
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize("way", [way for way in WAYS if way != "libfuse"])
@pytest.mark.parametrize("first", ["read", "write"])
def test_a_file_that_is_reset_while_a_program_writes_it_is_another_one(
    project: Path, point: Path, tmp_path: Path, way: str, first: str
) -> None:
    with mounting(project, point, tmp_path / "home", **WAYS[way]) as mounted, shardfs.open(project) as repo:
        path = mounted.staging / "model.bin"
        with path.open("w+b", buffering=0) as old:
            old.write(b"dropped")
            repo.reset([])
            if first == "read":
                assert path.read_bytes() == DATA
            path.write_bytes(b"new")
            old.write(b" and dropped")
            assert (os.pread(old.fileno(), 100, 0), path.read_bytes()) == (b"dropped and dropped", b"new")
        assert path.read_bytes() == b"new"
        assert eventually(lambda: not repo.status().unfinished, 5)
        mounted.commit("new")
        assert (mounted.latest / "model.bin").read_bytes() == b"new"


def rewrite(mounted: Mounted, stop: threading.Event) -> None:
    """Write the same file anew, and in place, all the time."""
    for number in range(1 << 30):
        with (mounted.staging / "model.bin").open("r+b" if number % 2 else "wb", buffering=0) as file:
            for _ in range(len(DATA) // MIB):
                file.write(bytes([number % 256]) * MIB)
            if number % 3 == 0:
                os.fsync(file.fileno())
        if stop.is_set():
            return


def vars_of(options: MountOptions) -> dict[str, Any]:
    return {"engine": options.engine, "passthrough": options.passthrough}
