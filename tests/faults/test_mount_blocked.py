"""Readers that wait for what does not come: others go on, everything ends in bounded time, nothing locks up."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import shardfs
from shardfs import mountinfo
from shardfs.mount import records, session
from shardfs.mount.options import MountOptions
from tests.mount.conftest import add_commit, eventually, make_project
from tests.stores import noise

pytestmark = pytest.mark.fuse

ENDS_S = 8.0  # as in tests/mount/test_lifecycle.py
BIG = noise(3, 3 << 20)
READ = ("env", "--default-signal=INT", "cat")  # a background job has SIGINT ignored


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose large file cannot be read: the pack is a pipe into which nobody writes."""
    project = tmp_path / "project"
    make_project(project, {"small": b"small"})
    with shardfs.open(project) as repo:
        add_commit(repo, {"big": BIG}, "two")
    for pack in (project / ".shardfs" / "packs").rglob("*.pack"):
        if pack.stat().st_size > 1 << 20:
            pack.unlink()
            os.mkfifo(pack)
    return project


@pytest.fixture(params=[("kernel", False), ("kernel", True), ("libfuse", False)], ids=["kernel", "safe", "libfuse"])
def options(request: pytest.FixtureRequest) -> MountOptions:
    engine, safe = request.param
    return MountOptions(engine=engine, safe=safe)


@contextmanager
def waiting(*paths: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that wait for the content of files."""
    started: list[subprocess.Popen[bytes]] = []
    try:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        started.extend(subprocess.Popen([*READ, path], **quiet) for path in paths)  # type: ignore[call-overload]
        for process in started:
            assert eventually(lambda pid=process.pid: waits(pid), 20)  # type: ignore[misc]
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def waits(pid: int) -> bool:
    place = Path(f"/proc/{pid}/wchan").read_text()
    return any(word in place for word in ("fuse", "folio", "request_wait"))


def gone(pid: int) -> bool:
    return records.process_start(pid) is None


def test_refs_move_while_reads_wait(project: Path, point: Path, options: MountOptions) -> None:
    """To act on a notice the kernel may need what a waiting read holds: pages, or the lock of a directory."""
    record = session.mount(point, project, options)
    with waiting(point / "latest" / "big", point / "staging" / "big", (point / "latest").resolve() / "big"):
        for number in range(3):
            with shardfs.open(project) as repo:
                id_ = add_commit(repo, {"small": b"%d" % number}, f"version {number}")
            assert eventually(lambda commit=id_: (point / "latest").readlink().name == commit, 5)  # type: ignore[misc]
            assert (point / "latest" / "small").read_bytes() == b"%d" % number
            (point / "staging" / "more").write_bytes(b"more")
            (point / ".shardfs" / "commit").write_text(f"through the mount {number}\n")
            assert eventually(lambda commit=id_: (point / "latest").readlink().name != commit, 5)  # type: ignore[misc]
            (point / "staging" / "more").unlink()
    session.unmount(point, force=True)
    assert gone(record.pid)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_a_reader_that_waits_can_be_ended(
    project: Path, point: Path, options: MountOptions, end: signal.Signals
) -> None:
    """Also by Ctrl-C, unless the program handles SIGINT itself: the kernel ends such waits for what kills alone."""
    record = session.mount(point, project, options)
    with waiting(point / "latest" / "big") as (reader,):
        reader.send_signal(end)
        reader.wait(5)
        assert (point / "latest" / "small").read_bytes() == b"small"
    session.unmount(point, force=True)
    assert gone(record.pid)


def test_a_mount_that_was_taken_out_of_the_tree_lives_as_long_as_its_users(
    project: Path, point: Path, options: MountOptions
) -> None:
    """`umount -l`: who waits goes on waiting; when they are gone, so is the daemon, and its mount point."""
    record = session.mount(point, project, options)
    held = os.open(point / "latest" / "small", os.O_RDONLY)
    with waiting(point / "latest" / "big") as (reader,):
        subprocess.run(["fusermount3", "-uz", point], check=True)
        assert mountinfo.top_row(point) is None
        assert os.read(held, 100) == b"small"
        assert not gone(record.pid)
        assert waits(reader.pid)
    os.close(held)
    assert eventually(lambda: gone(record.pid), ENDS_S)
    assert session.list_mounts() == []
    assert not point.exists()


def test_a_mount_in_the_foreground_ends_while_reads_wait(project: Path, point: Path) -> None:
    program = "import sys; from shardfs.mount import session; session.mount(*sys.argv[1:3], foreground=True)"
    argv = [sys.executable, "-c", program, str(point), str(project)]
    with subprocess.Popen(argv, stderr=subprocess.DEVNULL) as daemon:
        try:
            assert eventually(lambda: [r.pid for r in session.list_mounts()] == [daemon.pid], 20)
            with waiting(point / "latest" / "big") as (reader,):
                daemon.send_signal(signal.SIGINT)
                assert daemon.wait(ENDS_S) == 0
                assert reader.wait(5) == 1
        finally:
            daemon.kill()
    assert not point.exists()
