"""How mounts begin, are used by several at once, and end: unmounted, by signals, by kill -9; in bounded time."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

import shardfs
from shardfs import mountinfo
from shardfs.errors import MountError, RepositoryNotFoundError
from shardfs.mount import records, session, umount
from shardfs.mount.options import MountOptions
from tests.mount.conftest import add_commit, eventually, make_project, mounting

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("engine")]

ENDS_S = 8.0  # SIGTERM with blocked readers: 0.5 s of grace and 0.5 for closing; the rest is for a busy machine
DATA = os.urandom(3 << 20)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository with one commit, in the home of this test."""
    make_project(tmp_path / "project", {"a.txt": b"hello\n", "big.bin": DATA})
    return tmp_path / "project"


def gone(pid: int) -> bool:
    return records.process_start(pid) is None


@contextmanager
def reader_of(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that reads a file and says what it got."""
    program = "import sys; print('begin', flush=True); print(len(open(sys.argv[1], 'rb').read()))"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begin\n"
        try:
            yield process
        finally:
            process.kill()


def block_reads(project: Path) -> None:
    """Make reading content wait for ever: its packs become pipes without a writer."""
    for pack in (project / ".shardfs" / "packs").rglob("*.pack"):
        if pack.stat().st_size > 1 << 20:
            pack.unlink()
            os.mkfifo(pack)


def waits(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process sleeps inside a request to a mount."""
    place = Path(f"/proc/{process.pid}/wchan").read_text()
    return any(word in place for word in ("fuse", "folio", "request_wait"))


# Beginning


def test_a_mount_is_ready_when_the_call_returns(project: Path, point: Path) -> None:
    record = session.mount(point, project)
    assert (point / "latest" / "a.txt").read_bytes() == b"hello\n"
    assert session.list_mounts() == [record]
    row = mountinfo.top_row(point)
    assert row is not None
    assert (record.connection, record.status, record.branch) == (row.connection, "alive", "main")
    assert json.loads((point / ".shardfs" / "config.json").read_text())["pid"] == record.pid
    session.unmount(point)
    assert gone(record.pid)
    assert session.list_mounts() == []
    assert not point.exists()


def test_a_mount_point_that_was_there_stays(project: Path, point: Path) -> None:
    point.mkdir()
    session.mount(point, project)
    session.unmount(point)
    assert list(point.iterdir()) == []


def test_content_below_the_mount_point_is_refused_unless_asked_for(project: Path, point: Path) -> None:
    (point / "content").mkdir(parents=True)
    with pytest.raises(MountError, match="not empty"):
        session.mount(point, project)
    session.mount(point, project, MountOptions(nonempty=True))
    assert not (point / "content").exists()
    session.unmount(point)
    assert (point / "content").exists()


def test_what_fails_leaves_nothing(tmp_path: Path, project: Path, point: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RepositoryNotFoundError):
        session.mount(point, tmp_path / "empty")
    with pytest.raises(MountError, match="no branch 'nothing'"):
        session.mount(point, project, MountOptions(branch="nothing"))
    assert not point.exists()
    assert session.list_mounts() == []


def test_a_live_mount_is_refused(project: Path, point: Path) -> None:
    record = session.mount(point, project)
    with pytest.raises(MountError, match=f"already mounted by process {record.pid}"):
        session.mount(point, project)
    assert (point / "latest").exists()
    session.unmount(point)


def test_of_mounts_at_the_same_moment_one_is_made(project: Path, point: Path) -> None:
    ends: list[str] = []

    def mount() -> None:
        try:
            session.mount(point, project)
            ends.append("mounted")
        except MountError as error:
            ends.append(str(error))

    threads = [threading.Thread(target=mount) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted("already mounted by process" in end for end in ends) == [False, True, True]
    assert "mounted" in ends
    session.unmount(point)
    assert mountinfo.top_row(point) is None


def test_read_only_and_other_branches(project: Path, point: Path, tmp_path: Path) -> None:
    with shardfs.open(project) as repo:
        repo.create_branch("exp/one")
    with mounting(project, point, tmp_path / "one", branch="exp/one"):
        assert (point / "branches" / "exp" / "one" / "a.txt").read_bytes() == b"hello\n"
        (point / "staging" / "a.txt").write_bytes(b"changed\n")
        (point / ".shardfs" / "commit").write_text("on the branch")
        assert (point / "latest" / "a.txt").read_bytes() == b"changed\n"
        assert (point / "branches" / "main" / "a.txt").read_bytes() == b"hello\n"
    with mounting(project, point, tmp_path / "two", read_only=True) as mounted:
        assert not mounted.staging.exists()
        assert (mounted.latest / "a.txt").read_bytes() == b"hello\n"
        with pytest.raises(OSError, match="Read-only"):
            mounted.commit("no")


@pytest.mark.parametrize("name", ["with blank, comma\\ and\nnewline", "caf\udce9"], ids=["odd", "not UTF-8"])
def test_mount_points_of_any_name(project: Path, tmp_path: Path, name: str) -> None:
    point = tmp_path / name
    record = session.mount(point, project)
    assert session.list_mounts() == [record]
    assert (point / "latest" / "a.txt").read_bytes() == b"hello\n"
    session.unmount(point)
    assert not point.exists()


def test_sources_of_any_name(tmp_path: Path, point: Path) -> None:
    project = tmp_path / "a,b\\c d"
    make_project(project, {"a": b"a"})
    session.mount(point, project)
    assert (point / "latest" / "a").read_bytes() == b"a"
    session.unmount(point)


# Ending


def test_a_busy_mount_names_who_uses_it(project: Path, point: Path) -> None:
    record = session.mount(point, project)
    file = os.open(point / "latest" / "a.txt", os.O_RDONLY)
    with pytest.raises(MountError, match=rf"in use by \S+ \({os.getpid()}\)"):
        session.unmount(point)
    assert os.read(file, 100) == b"hello\n"
    begin = time.monotonic()
    session.unmount(point, force=True)
    assert time.monotonic() - begin < ENDS_S
    with suppress(OSError):  # the connection is gone
        os.close(file)
    assert gone(record.pid)
    assert not point.exists()


@pytest.mark.parametrize("where", ["folder/models", "link"])
def test_a_mount_is_found_behind_links(project: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "folder").symlink_to("real")
    (tmp_path / "link").symlink_to("real/models")
    (tmp_path / "real" / "models").mkdir()
    record = session.mount(tmp_path / where, project)
    assert record.mountpoint == tmp_path / "real" / "models"
    session.unmount(tmp_path / where)
    assert mountinfo.top_row(record.mountpoint) is None


def test_the_tool_of_fuse_ends_a_mount_cleanly(project: Path, point: Path) -> None:
    record = session.mount(point, project)
    subprocess.run(["fusermount3", "-u", point], check=True)
    assert eventually(lambda: gone(record.pid), ENDS_S)
    assert eventually(lambda: not point.exists(), 1)
    assert session.list_mounts() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_a_mount_cleanly(project: Path, point: Path, number: signal.Signals) -> None:
    record = session.mount(point, project)
    os.kill(record.pid, number)
    assert eventually(lambda: gone(record.pid), ENDS_S)
    assert not point.exists()
    assert session.list_mounts() == []


def test_ctrl_c_ends_a_mount_in_the_foreground(project: Path, point: Path, engine: str) -> None:
    program = (
        "import sys; from shardfs.mount import options, session; "
        "session.mount(*sys.argv[1:3], options.MountOptions(engine=sys.argv[3]), foreground=True)"
    )
    command = [sys.executable, "-c", program, str(point), str(project), engine]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert eventually(lambda: [r.pid for r in session.list_mounts()] == [process.pid], 10)
            assert (point / "latest" / "a.txt").read_bytes() == b"hello\n"
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=ENDS_S)
        finally:
            process.kill()
    assert (process.returncode, said) == (0, "")
    assert not point.exists()


def end_by_signal(point: Path, pid: int) -> None:
    os.kill(pid, signal.SIGTERM)
    assert eventually(lambda: gone(pid), ENDS_S)


def end_by_force(point: Path, pid: int) -> None:
    session.unmount(point, force=True)
    assert gone(pid)


@pytest.mark.parametrize("end", [end_by_signal, end_by_force])
def test_the_end_does_not_wait_for_blocked_readers(
    project: Path, point: Path, end: Callable[[Path, int], None]
) -> None:
    block_reads(project)
    record = session.mount(point, project)
    with reader_of(point / "latest" / "big.bin") as process:
        assert eventually(lambda: waits(process), 5)
        begin = time.monotonic()
        end(point, record.pid)
        assert time.monotonic() - begin < ENDS_S
        assert process.stderr is not None
        assert process.wait(5) == 1
        assert b"[Errno " in process.stderr.read()
    assert mountinfo.top_row(point) is None


def test_a_blocked_reader_can_be_killed_and_others_go_on(project: Path, point: Path) -> None:
    block_reads(project)
    record = session.mount(point, project)
    with reader_of(point / "latest" / "big.bin") as process:
        assert eventually(lambda: waits(process), 5)
        assert "latest" in os.listdir(point)
        assert (point / ".shardfs" / "stats.json").read_text()
        process.kill()
        process.wait(5)
    session.unmount(point, force=True)
    assert gone(record.pid)


def test_a_stopped_daemon_is_killed_after_the_deadline(project: Path, point: Path) -> None:
    record = session.mount(point, project)
    os.kill(record.pid, signal.SIGSTOP)
    begin = time.monotonic()
    assert session.list_mounts() == [record]  # does not look at the mount
    session.unmount(point, force=True, timeout_s=1)
    assert time.monotonic() - begin < ENDS_S
    assert gone(record.pid)


# kill -9


def test_a_killed_daemon_loses_nothing_that_was_closed_and_is_replaced(project: Path, point: Path) -> None:
    record = session.mount(point, project)
    (point / "staging" / "closed").write_bytes(DATA)
    synced = (point / "staging" / "synced").open("wb", buffering=0)
    synced.write(b"synced")
    os.fsync(synced.fileno())
    os.kill(record.pid, signal.SIGKILL)
    assert eventually(lambda: gone(record.pid), 5)
    with pytest.raises(OSError, match=r"not connected|abort"):
        os.listdir(point)
    with suppress(OSError):
        synced.close()
    assert [r.status for r in session.list_mounts()] == ["dead"]
    again = session.mount(point, project)
    assert again.pid != record.pid
    assert (point / "staging" / "closed").read_bytes() == DATA
    assert (point / "staging" / "synced").read_bytes() == b"synced"
    (point / ".shardfs" / "commit").write_text("after the kill")
    assert (point / "latest" / "closed").read_bytes() == DATA
    session.unmount(point)


def test_a_dead_mount_can_be_unmounted(project: Path, point: Path) -> None:
    record = session.mount(point, project)
    os.kill(record.pid, signal.SIGKILL)
    assert eventually(lambda: gone(record.pid), 5)
    session.unmount(point)
    assert mountinfo.top_row(point) is None
    assert session.list_mounts() == []


def test_readers_of_a_killed_daemon_get_an_error(project: Path, point: Path) -> None:
    block_reads(project)
    record = session.mount(point, project)
    with reader_of(point / "latest" / "big.bin") as process:
        assert eventually(lambda: waits(process), 5)
        os.kill(record.pid, signal.SIGKILL)
        assert process.wait(5) == 1
    session.unmount(point)


# Several at once


def test_two_mounts_of_one_repository(project: Path, tmp_path: Path) -> None:
    one, two = (mounting(project, tmp_path / name, tmp_path / f"home-{name}") for name in ("one", "two"))
    with one as first, two as second:
        (first.staging / "new").write_bytes(b"data")
        assert eventually(lambda: (second.staging / "new").read_bytes() == b"data", 1)
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is tested
            (second.staging / "other").write_bytes(b"data")
        assert caught.value.errno == errno.EBUSY
        assert str(first.point) in second.errors()
        commit = first.commit("from the first")
        assert eventually(lambda: second.latest.readlink().name == commit, 1)
        assert (second.latest / "new").read_bytes() == b"data"


def test_readers_see_whole_versions_while_commits_happen(project: Path, point: Path, tmp_path: Path) -> None:
    with mounting(project, point, tmp_path) as mounted:
        wrong: list[str] = []
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                commit = Path(os.path.realpath(mounted.latest))
                data, digest = (commit / "big.bin").read_bytes(), commit / "digest"
                if digest.exists() and hashlib.sha256(data).hexdigest() != digest.read_text():
                    wrong.append(commit.name)

        readers = [threading.Thread(target=read) for _ in range(4)]
        for thread in readers:
            thread.start()
        try:
            for number in range(5):
                data = os.urandom(1 << 20)
                (mounted.staging / "big.bin").write_bytes(data)
                (mounted.staging / "digest").write_text(hashlib.sha256(data).hexdigest())
                mounted.commit(f"version {number}")
        finally:
            stop.set()
            for thread in readers:
                thread.join()
        assert wrong == []
        assert len(os.listdir(mounted.point / "versions")) == 6


def test_garbage_collection_disturbs_no_reader(project: Path, point: Path, tmp_path: Path) -> None:
    with shardfs.open(project) as repo:
        repo.create_branch("dropped")
        repo.switch("dropped")
        add_commit(repo, {"dropped": os.urandom(1 << 20)}, "dropped")
        repo.switch("main")
        repo.delete_branch("dropped", force=True)
    with mounting(project, point, tmp_path) as mounted:
        wrong: list[object] = []
        stop = threading.Event()

        def read() -> None:
            while not stop.is_set():
                fd = os.open(mounted.latest / "big.bin", os.O_RDONLY)
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # ask the daemon again, not the page cache
                data = os.pread(fd, len(DATA), 0)
                os.close(fd)
                if data != DATA:
                    wrong.append(len(data))

        thread = threading.Thread(target=read)
        thread.start()
        try:
            for number in range(3):
                (mounted.staging / "new").write_bytes(os.urandom(100_000))
                mounted.commit(f"version {number}")
                with shardfs.open(project) as repo:
                    repo.gc(grace_s=0)
        finally:
            stop.set()
            thread.join()
        assert wrong == []
        assert "EIO" not in mounted.errors()


def test_a_file_that_is_being_written_is_committed_as_it_was(project: Path, point: Path, tmp_path: Path) -> None:
    with mounting(project, point, tmp_path) as mounted:
        (mounted.staging / "other").write_bytes(b"other")
        with (mounted.staging / "a.txt").open("r+b", buffering=0) as file:
            file.write(b"torn!")
            mounted.commit("while a.txt is written")
            assert (mounted.latest / "a.txt").read_bytes() == b"hello\n"
            file.write(b"\n")
        mounted.commit("after")
        assert (mounted.latest / "a.txt").read_bytes() == b"torn!\n"


def test_commits_of_the_command_line_and_of_the_mount_alternate(project: Path, point: Path, tmp_path: Path) -> None:
    with mounting(project, point, tmp_path) as mounted:
        for number in range(3):
            (mounted.staging / f"mount-{number}").write_bytes(b"%d" % number)
            mounted.commit(f"mount {number}")
            with shardfs.open(project) as repo:
                commit = add_commit(repo, {f"line-{number}": b"%d" % number}, f"line {number}")
            assert eventually(lambda name=commit: mounted.latest.readlink().name == name, 1)  # type: ignore[misc]
        names = {name for name in os.listdir(mounted.latest) if "-" in name}
        assert names == {f"{kind}-{number}" for kind in ("mount", "line") for number in range(3)}
        assert len(os.listdir(mounted.point / "versions")) == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees the connections of FUSE")
def test_an_aborted_mount_lets_everybody_go(
    project: Path, point: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = tmp_path / "connections"
    connections.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "fusectl", connections], check=True)
    try:
        monkeypatch.setattr(umount, "_CONNECTIONS", connections)
        block_reads(project)
        record = session.mount(point, project)
        os.kill(record.pid, signal.SIGSTOP)
        with reader_of(point / "latest" / "big.bin") as process:
            assert eventually(lambda: waits(process), 5)
            assert umount.abort(record)
            assert process.wait(5) == 1
        os.kill(record.pid, signal.SIGCONT)
        assert eventually(lambda: gone(record.pid), ENDS_S)
        session.unmount(point)
        assert not umount.abort(record)
    finally:
        subprocess.run(["umount", connections], check=True)
