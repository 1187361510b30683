"""What the next process finds after a session died at every kind of moment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from shardfs.staging import generations, opened, recovery
from shardfs.staging.area import Area
from shardfs.staging.nodes import ROOT
from tests.areas import Flat, MemoryStore, crash, files, rows, shown, write

BASE: Flat = {(b"a",): b"0123456789", (b"d", b"b"): b"beta"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def area(tmp_path: Path, store: MemoryStore) -> Area:
    return store.area(tmp_path / "area", store.put(BASE))


def reopen(area: Area, store: MemoryStore) -> Area:
    crash(area)
    return store.area(area.directory, session=False)


def test_what_was_closed_is_there(area: Area, store: MemoryStore) -> None:
    write(area, b"new", b"closed")
    write(area, b"a", b"closed too")
    area.rename(ROOT, b"d", ROOT, b"m")
    with reopen(area, store) as again:
        assert shown(again) == {(b"new",): b"closed", (b"a",): b"closed too", (b"m", b"b"): b"beta"}
        assert again.recovery == recovery.Recovery()
        assert store.commit(again) == shown(again)


@pytest.mark.parametrize("by_kernel", [False, True], ids=["by the area", "by the kernel"])
@pytest.mark.parametrize("written", [b"closed", b""], ids=["content", "nothing"])
@pytest.mark.parametrize("private", [False, True], ids=["committed", "private"])
def test_what_was_closed_is_there_before_the_area_knows(
    area: Area, store: MemoryStore, by_kernel: bool, written: bytes, private: bool
) -> None:
    if private:
        write(area, b"a", b"9876543210")
    file = area.open_file(area.lookup(ROOT, b"a").ino, os.O_RDWR | os.O_TRUNC)
    fd = file.backing() if by_kernel else None
    if fd is not None:
        os.pwrite(fd, written, 0)
    else:
        file.write(0, written)
    file.flush()
    mtime_ns = file.stat().mtime_ns
    with reopen(area, store) as again:
        assert shown(again)[b"a",] == written
        assert again.lookup(ROOT, b"a").mtime_ns == mtime_ns
        assert again.recovery == recovery.Recovery()
        assert store.commit(again) == shown(again)


def test_layers_that_were_closed_are_there_before_the_area_knows(
    area: Area, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opened, "LAYERED_FROM", 1)
    for offset, expected in ((2, b"01xx456789"), (10, b"01xx456789xx")):
        file = area.open_file(area.lookup(ROOT, b"a").ino, os.O_RDWR)
        file.write(offset, b"xx")
        file.flush()
        area = reopen(area, store)
        area.start_session("a test")
        assert shown(area)[b"a",] == expected
    assert store.commit(area)[b"a",] == expected
    area.close()


@pytest.mark.parametrize("by_kernel", [False, True], ids=["by the area", "by the kernel"])
def test_one_descriptor_of_several_that_was_closed_is_not_the_end(
    area: Area, store: MemoryStore, by_kernel: bool
) -> None:
    before = shown(area)
    file = area.open_file(area.lookup(ROOT, b"a").ino, os.O_RDWR | os.O_TRUNC)
    fd = file.backing() if by_kernel else None
    for part in (b"written before", b" and after"):
        size = file.stat().size
        if fd is not None:
            os.pwrite(fd, part, size)
        else:
            file.write(size, part)
        if not size:
            file.flush()
    assert store.commit(area) == before
    with reopen(area, store) as again:
        assert shown(again) == before
        assert again.recovery.dropped == [(b"a",)]


def test_what_was_closed_and_renamed_replaces_the_old_file_before_the_area_knows(
    area: Area, store: MemoryStore
) -> None:
    file = area.create(ROOT, b"temporary", 0o644)
    file.write(0, b"closed")
    file.flush()
    area.rename(ROOT, b"temporary", ROOT, b"a")
    with reopen(area, store) as again:
        assert shown(again)[b"a",] == b"closed"
        assert again.recovery == recovery.Recovery()


@pytest.mark.parametrize("way", ["truncate", "rewrite", "append", "rewrite after append"])
@pytest.mark.parametrize("private", [False, True], ids=["committed", "private"])
def test_unfinished_content_gives_way_to_the_stable_one(
    area: Area, store: MemoryStore, way: str, private: bool
) -> None:
    if private:
        write(area, b"a", b"9876543210")
    before = shown(area)
    file = area.open_file(area.lookup(ROOT, b"a").ino, os.O_RDWR | (os.O_TRUNC if way == "truncate" else 0))
    if "append" in way:
        file.write(10, b"unfinished")
    if way != "append":
        file.write(0, b"unfinished")
    with reopen(area, store) as again:
        assert shown(again) == before
        assert again.recovery.dropped == [(b"a",)]
        assert len(files(again)) == int(private)
        again.start_session("the next")
        file = again.open_file(again.lookup(ROOT, b"a").ino, os.O_RDWR)
        file.write(15, b"after a gap")
        file.release()
        assert shown(again)[b"a",] == before[b"a",] + bytes(5) + b"after a gap"  # type: ignore[operator]


def test_a_new_file_that_was_never_closed_keeps_what_was_written(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"new", 0o644)
    file.write(0, b"half")
    area.create(ROOT, b"empty", 0o644)
    with reopen(area, store) as again:
        assert shown(again) == BASE | {(b"new",): b"half", (b"empty",): b""}
        assert sorted(again.recovery.kept) == [(b"empty",), (b"new",)]
        assert again.unfinished() == []
        assert store.commit(again) == shown(again)


def test_fsync_is_a_stable_point(area: Area, store: MemoryStore) -> None:
    file = area.open_file(area.lookup(ROOT, b"a").ino, os.O_RDWR | os.O_TRUNC)
    file.write(0, b"synced")
    file.fsync()
    file.write(6, b" not")
    file.write(0, b"not")
    with reopen(area, store) as again:
        assert shown(again) == BASE | {(b"a",): b"synced"}


def test_a_file_renamed_over_another_before_its_close_falls_back_to_the_old_one(area: Area, store: MemoryStore) -> None:
    write(area, b"a", b"old")
    file = area.create(ROOT, b"tmp", 0o644)
    file.write(0, b"half")
    area.rename(ROOT, b"tmp", ROOT, b"a")
    with reopen(area, store) as again:
        assert shown(again) == BASE | {(b"a",): b"old"}
        assert len(files(again)) == 1


def test_files_that_nothing_names_are_deleted(area: Area, store: MemoryStore) -> None:
    write(area, b"new", b"kept")
    file = area.open_file(area.lookup(ROOT, b"new").ino, os.O_RDWR)
    area.unlink(ROOT, b"new")
    file.write(0, b"x")
    write(area, b"other", b"kept")
    (area.directory / "files" / "12345.1").write_bytes(b"orphan")
    (area.directory / "files" / "README").write_bytes(b"not ours")
    with reopen(area, store) as again:
        kept = files(again)
        assert len(kept) == 2
        assert "README" in kept
        assert shown(again) == BASE | {(b"other",): b"kept"}


def test_files_stay_while_a_snapshot_needs_them(area: Area, store: MemoryStore) -> None:
    write(area, b"new", b"in the snapshot")
    with store.area(area.directory, session=False) as committer, committer.snapshot() as snapshot:
        write(area, b"new", b"later")
        with reopen(area, store) as again:
            assert len(files(again)) == 2
            assert store.flat(store.build(snapshot))[b"new",] == b"in the snapshot"
            snapshot.close()
            again.start_session("sweeps")
            assert len(files(again)) == 1


def test_a_power_cut_that_took_bytes_is_reported(
    area: Area, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    write(area, b"short", b"0123456789")
    write(area, b"lost", b"0123456789")
    short, lost = (area.lookup(ROOT, name).ino for name in (b"short", b"lost"))
    os.truncate(area.directory / "files" / f"{short}.1", 4)
    (area.directory / "files" / f"{lost}.1").unlink()
    with reopen(area, store) as again:
        assert sorted(again.recovery.cut) == [(b"lost",), (b"short",)]
        assert any("bytes are missing" in line and "lost" in line and "short" in line for line in caplog.messages)
        assert shown(again) == BASE | {(b"short",): b"0123", (b"lost",): b""}
        assert store.commit(again) == shown(again)


@pytest.mark.parametrize("way", ["rename", "rewrite", "unlink"])
def test_a_power_cut_leaves_what_was_synced_when_nothing_was_synced_since(
    area: Area, store: MemoryStore, tmp_path: Path, way: str
) -> None:
    """The disk may have the deletion of a file before it has the log that made the file superfluous."""
    for name in (b"model", b"tmp"):
        write(area, name, name)
        file = area.open_file(area.lookup(ROOT, name).ino, os.O_RDWR)
        file.fsync()
        file.release()
    synced = shown(area)
    for path in area.directory.glob("area.sqlite*"):
        shutil.copy(path, tmp_path)
    if way == "rename":
        area.rename(ROOT, b"tmp", ROOT, b"model")
    elif way == "rewrite":
        write(area, b"model", b"rewritten")
    else:
        area.unlink(ROOT, b"model")
    crash(area)
    for path in tmp_path.glob("area.sqlite*"):
        shutil.copy(path, area.directory)
    with store.area(area.directory, session=False) as again:
        assert shown(again) == synced
        assert again.recovery.cut == []


def test_superfluous_files_do_not_pile_up(area: Area, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "_MAX_OUTDATED_BYTES", 50)
    for number in range(20):
        write(area, b"model", b"%010d" % number)
        assert len(list((area.directory / "files").iterdir())) <= 7
    area.close()
    assert len(list((area.directory / "files").iterdir())) == 1


def test_a_live_session_is_left_alone(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"new", 0o644)
    file.write(0, b"half")
    with store.area(area.directory, session=False) as other:
        assert other.recovery == recovery.Recovery()
        assert other.unfinished() == [(b"new",)]
    file.write(4, b" and half")
    file.release()
    assert shown(area)[b"new",] == b"half and half"
    area.close()


def test_a_session_that_ends_in_order_leaves_nothing_to_do(area: Area, store: MemoryStore) -> None:
    write(area, b"new", b"new")
    store.commit(area)
    area.close()
    with store.area(area.directory, session=False) as again:
        assert rows(again) == 0
        assert files(again) == []
