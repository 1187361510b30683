"""Files that the kernel writes to itself: here the descriptor that it would write to is written to by the test."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import NothingToCommitError
from shardfs.formats.tree import FileEntry
from shardfs.repository import Repository
from shardfs.staging.area import Area
from shardfs.staging.handles import AreaFile
from shardfs.staging.nodes import ROOT
from tests.areas import Flat, MemoryStore, crash, files, shown, write

BASE: Flat = {(b"a",): b"committed"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def area(tmp_path: Path, store: MemoryStore) -> Area:
    return store.area(tmp_path / "area", store.put(BASE))


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with shardfs.init(tmp_path / "project") as repo:
        (tmp_path / "project" / "a").write_bytes(b"committed")
        repo.add([tmp_path / "project" / "a"])
        repo.commit("first")
        repo.area().start_session("test")
        yield repo


def opened_file(area: Area, flags: int, name: bytes = b"a") -> AreaFile:
    return area.open_file(area.lookup(ROOT, name).ino, flags)


def lent(file: AreaFile) -> int:
    """A descriptor as the kernel has it: it outlives the handle."""
    fd = file.backing()
    assert fd is not None
    return os.dup(fd)


def tip(repo: Repository, name: str) -> bytes:
    entry = repo.entry("HEAD", name)
    assert isinstance(entry, FileEntry)
    return repo.open_entry(entry).read_at(0, entry.size)


def test_what_the_kernel_writes_is_seen_and_committed(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"new", 0o644)
    fd = lent(file)
    os.pwrite(fd, b"written by the kernel", 0)
    assert file.stat().size == area.lookup(ROOT, b"new").size == 21
    assert file.read(0, 7) == b"written"
    assert store.commit(area) == BASE
    file.release()
    os.close(fd)
    assert store.commit(area) == BASE | {(b"new",): b"written by the kernel"}
    assert files(area) == []


@pytest.mark.parametrize(
    ("flags", "private"),
    [(os.O_RDWR, False), (os.O_RDWR, True), (os.O_RDONLY, True), (os.O_WRONLY | os.O_TRUNC | os.O_APPEND, True)],
    ids=["committed content", "private content", "for reading", "to append"],
)
def test_what_the_area_has_to_see_is_not_given_away(area: Area, flags: int, private: bool) -> None:
    if private:
        write(area, b"a", b"private")
    file = opened_file(area, flags)
    assert file.backing() is None
    file.release()


def test_a_file_that_others_have_open_is_not_given_away(area: Area) -> None:
    reader = opened_file(area, os.O_RDONLY)
    file = opened_file(area, os.O_WRONLY | os.O_TRUNC)
    assert file.backing() is None
    file.release()
    reader.release()


def test_whoever_opens_it_later_has_the_same_file(area: Area, store: MemoryStore) -> None:
    file = opened_file(area, os.O_WRONLY | os.O_TRUNC)
    fd = lent(file)
    os.pwrite(fd, b"first", 0)
    reader = opened_file(area, os.O_RDONLY)
    assert os.fstat(reader.backing() or -1).st_ino == os.fstat(fd).st_ino
    file.release()
    again = opened_file(area, os.O_RDWR)
    os.pwrite(lent(again), b"F", 0)
    assert reader.read(0, 10) == b"First"
    truncated = opened_file(area, os.O_RDWR | os.O_TRUNC)
    os.pwrite(fd, b"new", 0)
    for one in (again, truncated, reader):
        one.release()
    assert store.commit(area) == {(b"a",): b"new"}
    assert files(area) == []


def test_fsync_makes_it_what_commits_take_until_it_changes(repo: Repository, caplog: pytest.LogCaptureFixture) -> None:
    file = opened_file(repo.area(), os.O_WRONLY | os.O_TRUNC)
    fd = lent(file)
    os.pwrite(fd, b"synced", 0)
    file.fsync()
    repo.commit("second")
    assert tip(repo, "a") == b"synced"
    os.pwrite(fd, b"c", 0)
    new = repo.area().create(ROOT, b"new", 0o644)
    os.pwrite(lent(new), b"synced", 0)
    new.fsync()
    os.pwrite(lent(new), b" and changed", 6)
    assert not caplog.messages
    with pytest.raises(NothingToCommitError):
        repo.commit("third")
    assert [message.rpartition(": ")[2] for message in caplog.messages] == ["a, new"]
    repo.commit("third", allow_empty=True)
    assert tip(repo, "a") == b"synced"
    assert [entry.name for entry in repo.entries("HEAD")] == [b"a"]
    file.release()
    new.release()
    repo.commit("fourth")
    assert tip(repo, "a") == b"cynced"
    assert tip(repo, "new") == b"synced and changed"


def test_sizes_and_times_that_are_set_reach_the_file(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"new", 0o644)
    fd = lent(file)
    os.pwrite(fd, b"0123456789", 0)
    file.truncate(4)
    file.utimens(1_234_567_890)
    assert os.fstat(fd).st_size == 4
    assert (file.stat().size, file.stat().mtime_ns) == (4, 1_234_567_890)
    file.release()
    assert area.lookup(ROOT, b"new").mtime_ns == 1_234_567_890
    assert store.commit(area)[b"new",] == b"0123"


def test_an_empty_file_leaves_nothing_on_disk(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"new", 0o644)
    lent(file)
    file.fsync()
    file.release()
    assert files(area) == []
    assert store.commit(area)[b"new",] == b""


def test_a_file_without_a_name_goes_with_its_last_handle(area: Area) -> None:
    file = area.create(ROOT, b"new", 0o644)
    fd = lent(file)
    area.unlink(ROOT, b"new")
    os.pwrite(fd, b"nameless", 0)
    assert file.read(0, 100) == b"nameless"
    assert file.stat().size == 8
    file.release()
    assert files(area) == []


@pytest.mark.parametrize("synced", [False, True], ids=["never synced", "synced"])
@pytest.mark.parametrize("new", [False, True], ids=["over a stable one", "new"])
def test_after_a_kill_nobody_changes_what_commits_take(area: Area, store: MemoryStore, synced: bool, new: bool) -> None:
    file = area.create(ROOT, b"new", 0o644) if new else opened_file(area, os.O_RDWR | os.O_TRUNC)
    fd = lent(file)
    os.pwrite(fd, b"synced", 0)
    if synced:
        file.fsync()
        os.pwrite(fd, b" and more", 6)
    crash(area)
    with store.area(area.directory, session=False) as area:
        name = (b"new",) if new else (b"a",)
        expected = (b"synced and more" if synced else b"synced") if new or synced else b"committed"
        assert shown(area)[name] == expected
        assert name in (area.recovery.kept if new or synced else area.recovery.dropped)
        os.pwrite(fd, b"too late", 0)
        os.ftruncate(fd, 1)
        assert store.commit(area) == BASE | {name: expected}
        assert files(area) == []
    os.close(fd)


def test_attributes_may_be_asked_for_during_the_last_release(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    file = area.create(area.root, b"new", 0o644, os.O_RDWR)
    backing = file.backing()
    assert backing is not None
    os.write(backing, b"written by the kernel")
    release = threading.Thread(target=file.release)
    real = os.fstat

    def released_just_before(fd: int) -> os.stat_result:
        monkeypatch.undo()
        release.start()
        release.join(0.3)
        return real(fd)

    monkeypatch.setattr(os, "fstat", released_just_before)
    assert area.lookup(area.root, b"new").size == 21
    release.join()
    assert area.lookup(area.root, b"new").size == 21


def test_whoever_writes_on_to_a_replaced_file_does_not_change_what_commits_take(area: Area, store: MemoryStore) -> None:
    old = opened_file(area, os.O_WRONLY | os.O_TRUNC)
    fd = lent(old)
    os.pwrite(fd, b"synced", 0)
    old.fsync()
    new = area.create(ROOT, b"new", 0o644)
    new.write(0, b"not closed")
    area.rename(ROOT, b"new", ROOT, b"a")
    os.pwrite(fd, b"C", 0)
    assert store.commit(area) == BASE
    for file in (old, new):
        file.release()
    os.close(fd)
    assert store.commit(area) == {(b"a",): b"not closed"}
    assert files(area) == []
