"""Durable writes, the writer lock, paths of a store."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pytest

from shardfs.errors import AreaError, LockedError, OutOfSpaceError, ReadOnlyError, StoreError
from shardfs.store import atomic
from shardfs.store.layout import Layout
from shardfs.store.locks import WriterLock


def test_a_file_is_replaced_and_nothing_else_is_left(tmp_path: Path) -> None:
    target, tmp = tmp_path / "a/b/file", tmp_path / "tmp"
    atomic.write_bytes(target, b"one", tmp)
    atomic.write_bytes(target, b"two", tmp)
    assert target.read_bytes() == b"two"
    assert list(tmp.iterdir()) == []


def test_every_new_directory_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(atomic, "sync_dir", synced.append)
    atomic.write_bytes(tmp_path / "a/b/c/file", b"", tmp_path / "tmp")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a/b", tmp_path / "a/b/c"]


def test_a_store_that_was_deleted_is_not_brought_back(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gone"):
        atomic.write_bytes(tmp_path / "store/HEAD", b"", tmp_path / "store/tmp")
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, OutOfSpaceError),
        (errno.EDQUOT, OutOfSpaceError),
        (errno.EROFS, ReadOnlyError),
        (errno.EACCES, ReadOnlyError),
        (errno.EIO, StoreError),
    ],
)
def test_errors_of_the_disk_have_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, error: type[StoreError]
) -> None:
    atomic.write_bytes(tmp_path / "file", b"old", tmp_path / "tmp")

    def fail(fd: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(error, match="cannot write") as caught:
        atomic.write_bytes(tmp_path / "file", b"new", tmp_path / "tmp")
    assert type(caught.value) is error
    assert (tmp_path / "file").read_bytes() == b"old"
    assert list((tmp_path / "tmp").iterdir()) == []


def test_an_error_of_staging_is_not_taken_for_one_of_the_disk() -> None:
    with pytest.raises(AreaError), atomic.os_errors("cannot"):
        raise AreaError(errno.EACCES, "x")


def test_unfinished_writes_go_after_a_day(tmp_path: Path) -> None:
    old, new, folder, busy = (tmp_path / name for name in ("old", "new", "folder", "busy"))
    for path in (old, new):
        path.touch()
    for path in (folder, busy):
        (path / "inner").mkdir(parents=True)
        (path / "inner/pack").touch()
    long_ago = 1.0
    for path in (folder / "inner/pack", folder / "inner", folder, busy / "inner", busy, old):
        os.utime(path, (long_ago, long_ago))
    assert atomic.remove_stale(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["busy", "new"]
    assert atomic.remove_stale(tmp_path / "missing") == 0


# Paths


def test_logs_are_never_in_each_others_way() -> None:
    layout = Layout(Path("/s"))
    assert layout.log("refs/heads/a") not in layout.log("refs/heads/a/b").parents
    assert layout.pack(b"\xab" * 32) == Path("/s/packs/ab") / f"{'ab' * 32}.pack"


@pytest.mark.parametrize("branch", ["main", "a/b", "100%", "a%2Fb", "模" * 63, "é" * 90])
def test_a_staging_directory_fits_and_names_its_branch(branch: str, tmp_path: Path) -> None:
    folder = Layout(tmp_path).staging(branch)
    folder.mkdir(parents=True)
    assert folder.parent == tmp_path / "staging"
    assert unquote(folder.name) == branch


# The writer lock


def _elsewhere(work: Callable[[], None]) -> None:
    """Run in another thread; what it raises is raised here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


def _take(lock: WriterLock) -> None:
    with lock.hold("test", wait_s=0):
        pass


def test_one_thread_may_take_it_again(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock", wait_s=0)
    with lock.hold("commit"):
        with lock.hold("inner"):
            pass
        with pytest.raises(LockedError):
            _elsewhere(lambda: _take(lock))
        assert lock.holder() is not None
    _elsewhere(lambda: _take(lock))
    assert lock.holder() is None


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock", wait_s=0)
    with pytest.raises(ValueError, match="x"), lock.hold("commit"):
        raise ValueError("x")
    _elsewhere(lambda: _take(lock))


def test_the_message_names_the_holder(tmp_path: Path) -> None:
    first, second = WriterLock(tmp_path / "lock"), WriterLock(tmp_path / "lock")
    with first.hold("import"), pytest.raises(LockedError, match=rf"process {os.getpid()} on .*import, since \d\d:"):
        _elsewhere(lambda: _take(second))


def test_what_an_old_holder_wrote_is_not_told_of_the_next(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock")
    _take(lock)
    assert (tmp_path / "lock").read_bytes() == b""


def test_it_waits_for_its_turn(tmp_path: Path) -> None:
    lock = WriterLock(tmp_path / "lock")
    order: list[str] = []
    inside = threading.Event()

    def second() -> None:
        inside.set()
        with lock.hold("second"):
            order.append("second")

    with lock.hold("first"):
        thread = threading.Thread(target=second)
        thread.start()
        inside.wait()
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_deleted_lock_file_locks_nobody_out_and_lets_no_two_in(tmp_path: Path) -> None:
    """A waiter that opened the old file must not be let in by it once the new file has a holder."""
    path = tmp_path / "lock"
    old, new, waiter = (WriterLock(path) for _ in range(3))
    waiting, entered = threading.Event(), threading.Event()

    def wait() -> None:
        waiting.set()
        with waiter.hold("waiter"):
            entered.set()

    thread = threading.Thread(target=wait)
    with old.hold("old"):
        thread.start()
        waiting.wait()
        while not _open_twice(path):
            pass
        path.unlink()
        fresh = new.hold("new", wait_s=0)
        fresh.__enter__()
    try:
        assert not entered.wait(0.2)
    finally:
        fresh.__exit__(None, None, None)
    thread.join()
    assert entered.is_set()


def _open_twice(path: Path) -> bool:
    """Whether this process has the file open at least twice: its holder and a waiter."""
    found = 0
    for fd in os.listdir("/proc/self/fd"):
        try:
            found += Path(f"/proc/self/fd/{fd}").readlink() == path
        except OSError:
            continue
    return found >= 2


def test_a_forked_child_neither_holds_nor_keeps_it(tmp_path: Path) -> None:
    script = """
import os, pathlib, sys, threading
from shardfs.errors import LockedError
from shardfs.store.locks import WriterLock

path = pathlib.Path(sys.argv[1])
lock = WriterLock(path, wait_s=0)
tried, told = os.pipe()
stay, leave = os.pipe()

def fork():
    global child
    child = os.fork()
    if child == 0:
        try:
            with lock.hold("child"):
                os.write(told, b"taken")
        except LockedError:
            os.write(told, b"refused")
        os.read(stay, 1)  # lives on with a copy of the parent's descriptor
        os._exit(0)

with lock.hold("parent"):
    thread = threading.Thread(target=fork)  # fork copies descriptors of all threads, but only one thread
    thread.start()
    thread.join()
    assert os.read(tried, 10) == b"refused"
with WriterLock(path, wait_s=0).hold("next"):
    pass
with lock.hold("parent"):
    if os.fork() == 0:
        with lock.hold("inner"):
            os._exit(1)
    assert os.wait()[1] != 0
os.write(leave, b"x")
os.wait()
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "lock"], check=True, timeout=60)


def test_a_lock_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot lock"):
        _take(WriterLock(tmp_path / "missing/lock"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot lock"):
        _take(WriterLock(tmp_path / "folder"))
