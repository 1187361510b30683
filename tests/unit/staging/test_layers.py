"""Large committed files that are changed in place: nothing is copied, and nothing is lost."""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.chunking.contentdefined import MAX_SIZE
from shardfs.errors import MalformedError
from shardfs.formats.ids import Kind
from shardfs.formats.tree import FileEntry
from shardfs.history.content import FileReader
from shardfs.repository import Repository
from shardfs.staging import opened, schema
from shardfs.staging.area import Area, AreaFile
from shardfs.staging.layers import Below
from shardfs.staging.nodes import ROOT
from tests.areas import MemoryStore, crash, files, shown, write

DATA = random.Random(1).randbytes(9 << 20)
MIB = 1 << 20


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def area(tmp_path: Path, store: MemoryStore) -> Area:
    return store.area(tmp_path / "area", store.put({(b"a",): DATA}))


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with shardfs.init(tmp_path / "project") as repo:
        (tmp_path / "project" / "a").write_bytes(DATA)
        repo.add([tmp_path / "project" / "a"])
        repo.commit("first")
        repo.area().start_session("test")
        yield repo


def opened_file(area: Area, flags: int = os.O_RDWR) -> AreaFile:
    return area.open_file(area.lookup(ROOT, b"a").ino, flags)


def on_disk(area: Area) -> int:
    """Bytes that the generations take."""
    return sum(path.stat().st_blocks * 512 for path in (area.directory / "files").iterdir())


def test_a_write_takes_the_room_of_what_is_written(area: Area, store: MemoryStore) -> None:
    file = opened_file(area)
    file.write(MIB, b"x" * 4096)
    file.fsync()
    file.write(2 * MIB, b"y" * 4096)
    changed = DATA[:MIB] + b"x" * 4096 + DATA[MIB + 4096 : 2 * MIB] + b"y" * 4096 + DATA[2 * MIB + 4096 :]
    assert file.read(0, len(DATA)) == changed
    file.release()
    assert on_disk(area) <= 32 << 10
    assert shown(area)[b"a",] == changed
    assert store.commit(area) == {(b"a",): changed}
    assert files(area) == []


def test_a_large_file_is_not_copied_to_append(area: Area, store: MemoryStore) -> None:
    file = opened_file(area, os.O_WRONLY | os.O_APPEND)
    file.write(0, b"more")
    file.release()
    assert on_disk(area) <= 16 << 10
    assert store.commit(area) == {(b"a",): DATA + b"more"}


def test_what_was_cut_off_does_not_come_back(area: Area, store: MemoryStore) -> None:
    file = opened_file(area)
    file.truncate(2 * MIB)
    file.truncate(3 * MIB)
    assert file.read(2 * MIB - 1, 3) == DATA[2 * MIB - 1 : 2 * MIB] + bytes(2)
    file.release()
    assert store.commit(area) == {(b"a",): DATA[: 2 * MIB] + bytes(MIB)}


def test_changes_survive_a_kill_once_they_are_closed(area: Area, store: MemoryStore) -> None:
    file = opened_file(area)
    file.write(0, b"closed")
    file.release()
    again = opened_file(area)
    again.write(10, b"unfinished")
    crash(area)
    with store.area(area.directory, session=False) as area:
        assert shown(area) == {(b"a",): b"closed" + DATA[6:]}
        assert store.commit(area) == shown(area)


def test_a_writer_that_renames_over_a_changed_file_leaves_its_content_to_commits(
    area: Area, store: MemoryStore
) -> None:
    file = opened_file(area)
    file.write(0, b"changed")
    file.release()
    new = area.create(ROOT, b"new", 0o644)
    new.write(0, b"new")
    area.rename(ROOT, b"new", ROOT, b"a")
    assert store.commit(area) == {(b"a",): b"changed" + DATA[7:]}
    new.release()
    assert store.commit(area) == {(b"a",): b"new"}


def test_a_power_cut_that_shortens_a_generation_shows_nothing_that_was_not_there(
    area: Area, store: MemoryStore
) -> None:
    file = opened_file(area)
    file.write(0, b"changed")
    file.release()
    (generation,) = (area.directory / "files").iterdir()
    crash(area)
    os.truncate(generation, MIB)
    with store.area(area.directory, session=False) as area:
        assert area.recovery.cut == [(b"a",)]
        area.start_session("test")
        assert shown(area) == {(b"a",): b"changed" + DATA[7:MIB]}
        area.truncate(area.lookup(ROOT, b"a").ino, 2 * MIB)
        assert store.commit(area) == {(b"a",): b"changed" + DATA[7:MIB] + bytes(MIB)}


def test_content_below_counts_as_used(repo: Repository) -> None:
    entry = repo.entry("HEAD", "a")
    assert isinstance(entry, FileEntry)
    assert entry.manifest is not None
    file = opened_file(repo.area())
    file.write(0, b"changed")
    file.release()
    assert (Kind.MANIFEST, entry.manifest) in set(repo.area().references())


def test_a_commit_reads_what_was_written_and_no_more_than_the_chunks_at_its_edges(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened_file(repo.area())
    file.write(0, b"x" * 1000)
    file.release()
    entry = repo.entry("HEAD", "a")
    assert isinstance(entry, FileEntry)
    before = repo.open_entry(entry).manifest.chunks
    asked: list[int] = []
    read = FileReader.read_at

    def counted(self: FileReader, offset: int, size: int) -> bytes:
        asked.append(size)
        return read(self, offset, size)

    monkeypatch.setattr(FileReader, "read_at", counted)
    repo.commit("second")
    assert sum(asked) < MAX_SIZE + (64 << 10)  # what the first cut may depend on, and looks for a layout
    entry = repo.entry("HEAD", "a")
    assert isinstance(entry, FileEntry)
    after = repo.open_entry(entry).manifest.chunks
    assert after[1:] == before[1:]
    assert after[0].id != before[0].id
    assert repo.open_entry(entry).read_at(0, len(DATA)) == b"x" * 1000 + DATA[1000:]


def test_small_files_are_copied(area: Area, store: MemoryStore) -> None:
    area.reset(store.put({(b"a",): DATA[: opened.LAYERED_FROM - 1]}))
    file = opened_file(area)
    file.write(0, b"x")
    file.release()
    with area.snapshot() as snapshot:
        assert [found.below for found in snapshot.files] == [None]


def test_an_area_of_an_older_version_is_brought_up_to_date(area: Area, store: MemoryStore) -> None:
    write(area, b"b", b"private")
    area.close()
    with sqlite3.connect(area.directory / "area.sqlite") as old:
        for column in ("below", "live"):
            old.execute(f"ALTER TABLE nodes DROP COLUMN {column}")
        old.execute("DROP TABLE closings")
        old.execute("PRAGMA user_version = 1")
    old.close()
    with store.area(area.directory) as area:
        assert shown(area) == {(b"a",): DATA, (b"b",): b"private"}
        file = opened_file(area)
        file.write(0, b"x")
        file.release()
        assert store.commit(area) == {(b"a",): b"x" + DATA[1:], (b"b",): b"private"}
    with sqlite3.connect(area.directory / "area.sqlite") as new:
        assert new.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    new.close()


@pytest.mark.parametrize("data", [b"", b"\0" * 8, b"\1" * 20])
def test_bytes_that_are_no_layer_are_an_error(data: bytes) -> None:
    with pytest.raises(MalformedError, match="below a staged file"):
        Below.from_bytes(data)
