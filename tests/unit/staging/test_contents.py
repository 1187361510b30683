"""Contents of staged files: what readers see at once, and what a commit may take."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardfs.errors import AreaError
from shardfs.staging import generations, opened
from shardfs.staging.area import Area
from shardfs.staging.handles import AreaFile
from shardfs.staging.nodes import ROOT
from tests.areas import Flat, MemoryStore, Plain, files, read, rows, shown, write

BASE: Flat = {(b"a",): b"0123456789", (b"d", b"b"): b"beta"}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def area(tmp_path: Path, store: MemoryStore) -> Iterator[Area]:
    with store.area(tmp_path / "area", store.put(BASE)) as area:
        yield area


def opened_file(area: Area, name: bytes, flags: int = os.O_RDWR) -> AreaFile:
    return area.open_file(area.lookup(ROOT, name).ino, flags)


def refused(code: int, action: Callable[..., object], *args: object) -> None:
    with pytest.raises(AreaError) as caught:
        action(*args)
    assert caught.value.errno == code


def test_opening_for_writing_copies_nothing(area: Area) -> None:
    file = opened_file(area, b"a")
    assert file.read(2, 3) == b"234"
    assert file.read(8, 100) == b"89"
    assert file.read(10, 1) == b""
    file.release()
    assert rows(area) == 0
    assert files(area) == []


def test_the_first_write_makes_the_file_private(area: Area, store: MemoryStore) -> None:
    file = opened_file(area, b"a")
    assert file.write(3, b"XY") == 2
    assert file.read(0, 100) == b"012XY56789"
    file.release()
    assert store.commit(area)[b"a",] == b"012XY56789"


def test_everybody_sees_a_write_at_once(area: Area) -> None:
    writer, reader = opened_file(area, b"a"), opened_file(area, b"a", os.O_RDONLY)
    writer.truncate(0)
    assert reader.read(0, 10) == b""
    writer.write(5, b"x")
    assert reader.read(0, 10) == b"\0\0\0\0\0x"
    assert area.lookup(ROOT, b"a").size == reader.stat().size == 6
    assert [node.size for node in area.list(ROOT) if node.name == b"a"] == [6]
    writer.release()
    assert reader.read(0, 10) == b"\0\0\0\0\0x"
    reader.release()


@pytest.mark.parametrize("way", ["truncate", "rewrite", "append"])
@pytest.mark.parametrize("private", [False, True], ids=["committed", "private"])
def test_a_commit_during_a_write_takes_the_old_content_whole(
    area: Area, store: MemoryStore, way: str, private: bool
) -> None:
    if private:
        write(area, b"a", b"9876543210")
    before = shown(area)[b"a",]
    file = opened_file(area, b"a", os.O_WRONLY | (os.O_TRUNC if way == "truncate" else 0))
    file.write(10 if way == "append" else 0, b"new")
    assert area.unfinished() == [(b"a",)]
    assert store.commit(area)[b"a",] == before
    file.write(13, b"er")
    file.release()
    after = shown(area)[b"a",]
    assert after != before
    assert area.unfinished() == []
    assert store.commit(area)[b"a",] == after
    assert files(area) == []


def test_a_new_file_is_committed_from_its_first_release_on(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"new", 0o644)
    file.write(0, b"half")
    assert (b"new",) not in store.commit(area)
    assert list(area.changes()) == []
    file.write(4, b" and half")
    file.release()
    assert store.commit(area)[b"new",] == b"half and half"


def test_fsync_makes_a_stable_point_while_the_file_is_open(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"log", 0o644)
    for number in range(3):
        file.write(number * 2, b"%d\n" % number)
        file.fsync()
        assert len(files(area)) == 1, "appends stay in one generation"
    file.write(6, b"unfinished")
    assert store.commit(area)[b"log",] == b"0\n1\n2\n"
    file.write(0, b"X")
    assert store.commit(area)[b"log",] == b"0\n1\n2\n"
    file.release()
    assert store.commit(area)[b"log",] == b"X\n1\n2\nunfinished"


def test_only_the_last_writers_release_counts(area: Area, store: MemoryStore) -> None:
    first, second, reader = (opened_file(area, b"a", flags) for flags in (os.O_RDWR, os.O_WRONLY, os.O_RDONLY))
    first.write(0, b"1")
    first.release()
    assert store.commit(area)[b"a",] == BASE[b"a",]
    second.write(1, b"2")
    second.release()
    assert store.commit(area)[b"a",] == b"1223456789"
    assert reader.read(0, 3) == b"122"
    reader.release()


def test_a_writer_goes_on_after_a_commit_took_its_file(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"log", 0o644)
    file.write(0, b"one")
    file.fsync()
    assert store.commit(area)[b"log",] == b"one"
    assert files(area) == [], "the commit made a reference of the file below the open handle"
    file.write(3, b"two")
    assert file.read(0, 10) == b"onetwo"
    file.release()
    assert shown(area)[b"log",] == b"onetwo"
    assert store.commit(area)[b"log",] == b"onetwo"


def test_append_mode_ignores_the_offset(area: Area) -> None:
    one, two = (opened_file(area, b"a", os.O_RDWR | os.O_APPEND) for _ in range(2))
    one.write(0, b"x")
    two.write(0, b"y")
    one.write(3, b"z")
    assert one.read(0, 20) == b"0123456789xyz"
    one.release()
    two.release()


def test_access_modes(area: Area) -> None:
    reader, writer = opened_file(area, b"a", os.O_RDONLY), opened_file(area, b"a", os.O_WRONLY)
    refused(errno.EBADF, reader.write, 0, b"x")
    refused(errno.EBADF, reader.truncate, 0)
    refused(errno.EBADF, writer.read, 0, 1)
    refused(errno.EINVAL, writer.truncate, -1)
    refused(errno.EISDIR, area.open_file, ROOT, os.O_RDONLY)
    refused(errno.ELOOP, area.open_file, area.symlink(ROOT, b"l", b"a").ino, os.O_RDONLY)
    reader.release()
    writer.release()


def test_truncate(area: Area, store: MemoryStore) -> None:
    ino = area.lookup(ROOT, b"a").ino
    area.truncate(ino, 4)
    assert store.commit(area)[b"a",] == b"0123"
    area.truncate(ino, 6)
    assert store.commit(area)[b"a",] == b"0123\0\0"
    area.truncate(ino, 6)
    assert list(area.changes()) == []
    area.truncate(ino, 0)
    assert store.commit(area)[b"a",] == b""
    assert files(area) == []


def test_an_unlinked_file_lives_until_its_last_release(area: Area, store: MemoryStore) -> None:
    file = opened_file(area, b"a")
    area.unlink(ROOT, b"a")
    assert file.read(0, 4) == b"0123"
    file.write(0, b"new")
    file.utimens(77)
    assert file.read(0, 4) == b"new3"
    assert (file.stat().size, file.stat().mtime_ns) == (10, 77)
    write(area, b"a", b"successor")
    file.write(0, b"old")
    file.fsync()
    assert shown(area)[b"a",] == b"successor"
    file.release()
    assert store.commit(area)[b"a",] == b"successor"
    assert files(area) == []


def test_an_unlinked_private_file_lives_until_its_last_release(area: Area) -> None:
    write(area, b"a", b"private")
    file = opened_file(area, b"a")
    area.unlink(ROOT, b"a")
    assert files(area) == []
    file.write(7, b" still")
    file.write(0, b"P")
    assert file.read(0, 20) == b"Private still"
    file.release()
    assert files(area) == []


def test_write_then_rename_over(area: Area, store: MemoryStore) -> None:
    write(area, b".a.tmp", b"new")
    area.rename(ROOT, b".a.tmp", ROOT, b"a")
    assert store.commit(area) == BASE | {(b"a",): b"new"}


@pytest.mark.parametrize("private", [False, True], ids=["committed", "private"])
def test_a_file_renamed_over_another_while_it_is_written(area: Area, store: MemoryStore, private: bool) -> None:
    """Between the rename and the close a commit finds the old content, not a hole and not a half."""
    if private:
        write(area, b"a", b"old, private")
    before = shown(area)[b"a",]
    file = area.create(ROOT, b"tmp", 0o644)
    file.write(0, b"half")
    area.rename(ROOT, b"tmp", ROOT, b"a")
    assert shown(area)[b"a",] == b"half"
    assert store.commit(area) == BASE | {(b"a",): before}
    file.write(4, b" and half")
    file.release()
    assert store.commit(area) == BASE | {(b"a",): b"half and half"}
    assert files(area) == []


def test_a_time_that_was_set_while_writing_survives_the_release(area: Area) -> None:
    file = area.create(ROOT, b"copy", 0o644)
    file.write(0, b"x")
    area.utimens(file.ino, 123)
    file.release()
    assert area.lookup(ROOT, b"copy").mtime_ns == 123
    file = opened_file(area, b"copy")
    file.write(0, b"y")
    file.utimens(456)
    file.release()
    assert area.lookup(ROOT, b"copy").mtime_ns == 456


def test_holes_stay_holes(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"sparse", 0o644)
    file.truncate(16 << 30)
    file.write(1 << 30, b"data")
    file.release()
    assert area.lookup(ROOT, b"sparse").size == 16 << 30
    file = opened_file(area, b"sparse")
    file.write(0, b"x")
    assert file.read(1 << 30, 4) == b"data"
    file.release()
    [path] = (area.directory / "files").iterdir()
    assert path.stat().st_size == 16 << 30
    assert path.stat().st_blocks * 512 < 1 << 20


def test_copy_up_of_long_content_in_pieces(area: Area, store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generations, "_PIECE", 1000)
    monkeypatch.setattr(generations, "_ZEROS", bytes(1000))
    data = random.Random(1).randbytes(2500) + bytes(3000) + b"end"
    area.reset(store.put({(b"long",): data}))
    file = opened_file(area, b"long")
    file.write(5, b"-")
    file.release()
    assert shown(area)[b"long",] == data[:5] + b"-" + data[6:]


def test_a_copy_without_reflinks_and_without_the_kernels_help(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> int:
        raise OSError(errno.EXDEV, "not here")

    monkeypatch.setattr(os, "copy_file_range", unsupported)
    write(area, b"a", b"some longer content")
    file = opened_file(area, b"a")
    file.write(0, b"S")
    file.release()
    assert shown(area)[b"a",] == b"Some longer content"


@pytest.mark.parametrize("private", [False, True], ids=["committed", "private"])
def test_a_full_disk_at_the_first_write_changes_nothing(
    area: Area, store: MemoryStore, monkeypatch: pytest.MonkeyPatch, private: bool
) -> None:
    if private:
        write(area, b"a", b"private content")
    before = shown(area)
    file = opened_file(area, b"a")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        for name in ("copy_file", "copy_content"):
            patch.setattr(opened, name, full)
        refused(errno.ENOSPC, file.write, 0, b"x")
    assert shown(area) == before
    file.write(0, b"x")
    file.release()
    assert shown(area)[b"a",] != before[b"a",]
    assert len(files(area)) == 1
    assert store.commit(area) == shown(area)


def test_a_full_disk_in_an_append_that_turns_into_a_rewrite_keeps_the_append(
    area: Area, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(area, b"a", b"stable")
    file = opened_file(area, b"a")
    file.write(6, b" appended")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(opened, "copy_file", full)
        refused(errno.ENOSPC, file.write, 0, b"X")
    file.release()
    assert shown(area)[b"a",] == b"stable appended"


def test_a_release_that_cannot_be_recorded_is_tried_again(area: Area, monkeypatch: pytest.MonkeyPatch) -> None:
    file = area.create(ROOT, b"new", 0o644)
    file.write(0, b"content")

    def full(*_: object, **__: object) -> None:
        raise AreaError(errno.ENOSPC, "area.sqlite")

    with monkeypatch.context() as patch:
        patch.setattr(opened.OpenNode, "_switch_row", full)
        refused(errno.ENOSPC, file.release)
    assert shown(area)[b"new",] == b"content"
    opened_file(area, b"new").release()
    assert area.unfinished() == []


def test_a_snapshot_waits_for_a_release_that_follows_a_flush(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"new", 0o644)
    file.write(0, b"content")
    file.flush()
    waiting = threading.Event()
    taken: list[Flat] = []
    original = area._closing.wait

    def wait() -> None:
        waiting.set()
        original()

    area._closing.wait = wait  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: taken.append(store.commit(area)))
    thread.start()
    assert waiting.wait(10)
    file.release()
    thread.join(10)
    assert taken[0][b"new",] == b"content"


def test_a_flush_without_a_release_delays_a_snapshot_for_a_second_at_most(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"shell redirection", 0o644)
    file.flush()
    assert (b"shell redirection",) not in store.commit(area)
    file.flush()
    file.write(0, b"written again: no release is near")
    assert area._closing._flushed == set()
    file.release()


def test_many_threads_on_one_file(area: Area, store: MemoryStore) -> None:
    """Eight writers rewrite blocks of one file, a reader never sees a torn block, the end is what was written."""
    size, block = 8, 4096
    write(area, b"shared", bytes(size * block))
    ino = area.lookup(ROOT, b"shared").ino
    torn: list[bytes] = []
    done = threading.Event()

    def writes(number: int) -> None:
        for value in range(1, 30):
            file = area.open_file(ino, os.O_WRONLY)
            file.write(number * block, bytes([value]) * block)
            if value % 7 == number % 7:
                file.fsync()
            file.release()

    def reads() -> None:
        file = area.open_file(ino, os.O_RDONLY)
        while not done.is_set():
            for number in range(size):
                data = file.read(number * block, block)
                if len(data) != block:
                    torn.append(data)
        file.release()

    reader = threading.Thread(target=reads)
    writers = [threading.Thread(target=writes, args=(number,)) for number in range(size)]
    for thread in (reader, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert torn == []
    assert read(area, ino) == bytes([29]) * size * block
    assert len(files(area)) == 1


def test_many_threads_on_many_names(area: Area, store: MemoryStore) -> None:
    def work(number: int) -> None:
        folder = area.mkdir(ROOT, b"t%d" % number, 0o755).ino
        for index in range(40):
            write(area, b"tmp", b"%d" % index, folder)
            area.rename(folder, b"tmp", folder, b"%d" % (index % 10))
        area.unlink(folder, b"0")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {(b"t%d" % t, b"%d" % i): b"%d" % (30 + i) for t in range(6) for i in range(1, 10)}
    assert shown(area) == BASE | expected
    assert store.commit(area) == BASE | expected


WHOLE = 40_000


def rewrite(area: Area, name: bytes, size: int, stop: threading.Event) -> None:
    """Fill a file with one byte, another one each time, starting from its first `size` bytes."""
    value = 0
    while not stop.is_set():
        value = value % 250 + 1
        file = area.create(ROOT, name, 0o644, os.O_RDWR)
        file.truncate(size)
        for offset in range(0, WHOLE, 8000):
            file.write(offset, bytes([value]) * 8000)
        if value % 5 == 0:
            file.fsync()
        file.flush()
        file.release()


def test_commits_from_another_process_while_files_are_rewritten_take_whole_contents(
    area: Area, store: MemoryStore, tmp_path: Path
) -> None:
    stop = threading.Event()
    threads = [threading.Thread(target=rewrite, args=(area, b"%d" % size, size, stop)) for size in (0, WHOLE)]
    for thread in threads:
        thread.start()
    seen: set[Plain] = set()
    with store.area(tmp_path / "area", session=False) as other:
        try:
            commits, deadline = 0, time.monotonic() + 30
            while commits < 30 or (len(seen) <= 4 and time.monotonic() < deadline):
                commits += 1
                seen |= {value for path, value in store.commit(other).items() if path not in BASE}
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert store.commit(other) == shown(area)
    assert all(isinstance(data, bytes) and data == data[:1] * WHOLE for data in seen), "torn"
    assert len(seen) > 4
    assert list(area.changes()) == []
    assert files(area) == []


@pytest.mark.parametrize("look", ["lookup", "stat", "handle"])
def test_attributes_during_a_release_are_those_of_what_was_written(
    area: Area, look: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reader = area.create(ROOT, b"new", 0o644), None
    if look == "handle":
        reader = opened_file(area, b"new", os.O_RDONLY)
    file.write(0, b"0123456789")
    real = area._database.read

    @contextmanager
    def released_right_after() -> Iterator[sqlite3.Connection]:
        """Between the look at the row and the answer, the kernel's release is served."""
        with real() as db:
            yield db
        monkeypatch.undo()
        file.release()

    ino = file.ino
    monkeypatch.setattr(area._database, "read", released_right_after)
    if reader is not None:
        assert reader.stat().size == 10
        reader.release()
    else:
        assert (area.lookup(ROOT, b"new") if look == "lookup" else area.stat(ino)).size == 10
