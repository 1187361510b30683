"""Each class of error has its exit status, in the table and in real life."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import click
import pytest

from shardfs import errors
from shardfs.store.layout import Layout
from shardfs.store.locks import WriterLock
from shardfs_cli.exit_status import MEANINGS, TABLE, ExitStatus, status_of, status_of_class
from tests.cli import reference
from tests.cli.conftest import PROGRAM, Shell

EXPECTED = {
    "NothingToCommitError": 1,
    "UnsupportedFileError": 1,
    "UsageError": 2,
    "RepositoryNotFoundError": 10,
    "RevisionNotFoundError": 1,
    "RefNotFoundError": 1,
    "PathNotFoundError": 1,
    "ObjectNotFoundError": 13,
    "ChunkNotFoundError": 13,
    "PackNotFoundError": 1,
    "NotFoundError": 1,
    "IntegrityError": 13,
    "ChunkCorruptedError": 13,
    "ObjectCorruptedError": 13,
    "PackCorruptedError": 13,
    "RefCorruptedError": 13,
    "IndexCorruptedError": 13,
    "FormatError": 13,
    "MalformedError": 13,
    "UnsupportedVersionError": 1,
    "ConflictError": 15,
    "RefChangedError": 15,
    "NotFastForwardError": 15,
    "AlreadyExistsError": 15,
    "FileChangedError": 15,
    "LocalChangesError": 15,
    "LockedError": 11,
    "StoreError": 1,
    "OutOfSpaceError": 1,
    "ReadOnlyError": 1,
    "AreaError": 1,
    "FsError": 1,
    "MountError": 1,
    "RemoteError": 14,
    "RemoteUnavailableError": 14,
    "RemoteTimeoutError": 14,
    "RemoteDeniedError": 14,
    "RemoteProtocolError": 14,
    "ShardfsError": 1,
}


@pytest.mark.parametrize("class_", reference.error_classes(), ids=lambda class_: class_.__name__)
def test_every_class_has_its_status(class_: type[errors.ShardfsError]) -> None:
    expected = next(EXPECTED[c.__name__] for c in class_.__mro__ if c.__name__ in EXPECTED)
    assert int(status_of_class(class_)) == expected


def test_other_errors() -> None:
    assert status_of(KeyboardInterrupt()) == ExitStatus.INTERRUPTED
    assert status_of(click.UsageError("x")) == ExitStatus.USAGE
    assert status_of(OSError(5, "x")) == ExitStatus.FAILED
    assert status_of(RuntimeError("a bug")) == ExitStatus.FAILED


def test_no_row_of_the_table_is_hidden_by_one_before_it() -> None:
    classes = [class_ for class_, _ in TABLE]
    hidden = [c for i, c in enumerate(classes) if any(issubclass(c, before) for before in classes[:i])]
    assert hidden == []
    assert MEANINGS.keys() == set(ExitStatus)


def test_no_repository(shell: Shell) -> None:
    for line in ("status", "log", "commit -m x", "add .", "branch", "verify", "mounts --json"):
        result = shell(*line.split(), status=None)
        assert result.status == (0 if line.startswith("mounts") else 10), line
    assert shell("status", status=10).err.startswith("shardfs: no repository at")


def test_nothing_to_commit(project: Shell) -> None:
    assert "nothing to commit" in project("commit", "-m", "x", status=1).err
    project.commit("one", a__txt="1")
    assert "nothing to commit" in project("commit", "-m", "x", status=1).err
    project("add", "a.txt")
    assert "nothing to commit" in project("commit", "-m", "x", status=1).err
    assert len(project("log", "--json").json) == 1


def test_locked(project: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("a.txt", "1")
    monkeypatch.setenv("SHARDFS_LOCK_WAIT", "0.05")
    lock = WriterLock(Layout(project.folder / ".shardfs").lock)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock.hold("testing"):
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(30)
    try:
        message = project("add", "a.txt", status=11).err
    finally:
        done.set()
        thread.join()
    assert f"process {os.getpid()}" in message
    assert "testing" in message


def flip(pack: Path, offset: int) -> None:
    """Damage a pack."""
    data = bytearray(pack.read_bytes())
    data[offset] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)


def packs(project: Shell) -> list[Path]:
    """The packs of a repository, the largest last."""
    return sorted((project.folder / ".shardfs/packs").rglob("*.pack"), key=lambda path: path.stat().st_size)


def test_damaged_chunk(project: Shell) -> None:
    project.commit("one", a__bin=os.urandom(100_000))
    flip(packs(project)[-1], 5000)
    result = project("cat", "HEAD:a.bin", status=13)
    assert result.out == ""
    problems = project("verify", "--json", status=13).json
    assert problems["ok"] is False
    [lost] = [problem for problem in problems["problems"] if problem["file"] is not None]
    assert (lost["kind"], lost["file"]) == ("chunk", "a.bin")
    assert lost["commit"] == project("log", "--json").json[0]["commit"]


def test_damaged_tree(project: Shell) -> None:
    project.commit("one", a__bin=os.urandom(100_000))
    flip(packs(project)[0], 100)  # 16 bytes of header, then the tree
    lines = project("verify", status=13).out.splitlines()
    commit = project("log", "--json").json[0]["commit"]
    assert f"(commit {commit[:12]})" in next(line for line in lines if line.startswith("tree"))


def test_remote_that_does_not_answer(project: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_DEADLINE", "0.2")
    project.commit("one", a__txt="1")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    project("remote", "add", "origin", f"http://127.0.0.1:{port}/x")
    for line in (["push"], ["fetch"], ["pull"], ["clone", f"http://127.0.0.1:{port}/x", "copy"]):
        result = project(*line, status=14)
        assert len(result.err.splitlines()) == 1
    assert not (project.folder / "copy").exists()


def test_conflicts(project: Shell) -> None:
    project.commit("one", a__txt="1")
    project("branch", "exp")
    project("branch", "exp", status=15)
    project("tag", "v1")
    project("commit", "-m", "x", "--allow-empty", "--tag", "v1", status=15)
    project("init", status=15)
    project.write("full/x", "1")
    project("export", "HEAD", "full", status=15)


def test_device_pipe_and_socket_are_refused_by_name(project: Shell) -> None:
    os.mkfifo(project.folder / "pipe")
    assert "pipe" in project("add", "pipe", status=1).err
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(project.folder / "sock"))
        assert "sock" in project("add", "sock", status=1).err


def test_directory_that_vanished(project: Shell, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh"]
    done = subprocess.run([*command, *PROGRAM, "status"], capture_output=True, text=True, check=False)
    assert done.returncode in (1, 10)
    assert len(done.stderr.splitlines()) == 1
