from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from shardfs.formats.ids import ChunkId, ManifestId, PackId, TreeId
from shardfs.formats.manifest import Media
from shardfs.formats.tree import FileEntry
from shardfs.staging.ingest import Ingested
from shardfs.staging.scan import Folder, Scanner
from shardfs.staging.source import RACY_NS, Stamp
from shardfs.staging.statcache import StatCache

PACKS = [PackId(bytes([i]) * 32) for i in range(3)]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "worktree.sqlite"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    return path


def content(path: Path, chunk: bytes | None = b"c" * 32) -> Ingested:
    status = path.stat()
    return Ingested(status.st_size, ChunkId(chunk) if chunk else None, None, None, Stamp.of(status))


def later(path: Path) -> int:
    return path.stat().st_ctime_ns + RACY_NS


@pytest.mark.parametrize("executable", [True, False])
def test_an_unchanged_file_is_known_after_a_restart(database: Path, file: Path, executable: bool) -> None:
    cache = StatCache(database, PACKS)
    assert cache.entry(b"d/file", file.stat(), executable=executable) is None
    cache.put(b"d/file", content(file), later(file))
    cache.save(PACKS)
    for each in (cache, StatCache(database, PACKS)):
        entry = each.entry(b"d/file", file.stat(), executable=executable)
        assert entry == FileEntry(b"file", 5, executable, ChunkId(b"c" * 32))
        assert each.key(b"d/file", file.stat()) == b"C" + b"c" * 32
        assert each.key(b"other", file.stat()) is None
        assert b"d" in each.folders()
        assert each.names(b"d") == {b"file"}


def test_a_manifest_is_known_as_one(database: Path, file: Path) -> None:
    cache = StatCache(database, PACKS)
    media = Media("safetensors", "pytorch", 3, 1000)
    cache.put(b"file", Ingested(5, None, ManifestId(b"m" * 32), media, Stamp.of(file.stat())), later(file))
    entry = cache.entry(b"file", file.stat(), executable=False)
    assert entry == FileEntry(b"file", 5, False, None, ManifestId(b"m" * 32))


def test_an_empty_file_is_known(database: Path, tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    cache = StatCache(database, PACKS)
    cache.put(b"empty", content(path, chunk=None), later(path))
    assert cache.key(b"empty", path.stat()) == b""
    assert cache.entry(b"empty", path.stat(), executable=False) == FileEntry(b"empty", 0)


def replace_inode(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.rename(path)


def rewrite_same_size(path: Path) -> None:
    path.write_bytes(b"54321")


def rewrite_and_restore_time(path: Path) -> None:
    status = path.stat()
    path.write_bytes(b"54321")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def grow(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"6")


@pytest.mark.parametrize("change", [Path.touch, grow, rewrite_same_size, rewrite_and_restore_time, replace_inode])
def test_any_change_has_the_file_read_again(database: Path, file: Path, change: object) -> None:
    # Old enough that the times of the change cannot fall into the same tick.
    cache = StatCache(database, PACKS)
    status = file.stat()
    before = Ingested(5, ChunkId(b"c" * 32), None, None, Stamp.of(status)._replace(ctime_ns=status.st_ctime_ns - 1))
    cache.put(b"file", before, later(file))
    change(file)  # type: ignore[operator]
    assert cache.key(b"file", file.stat()) is None


def test_a_file_that_changed_just_before_is_read_again(database: Path, file: Path) -> None:
    cache = StatCache(database, PACKS)
    cache.put(b"file", content(file), later(file))
    cache.put(b"file", content(file), later(file) - 1)
    assert cache.key(b"file", file.stat()) is None
    cache.save(PACKS)
    again = StatCache(database, PACKS)
    assert again.key(b"file", file.stat()) is None
    assert again.names(b"") == {b"file"}


def test_a_part_of_a_file_is_not_remembered_as_the_file(database: Path, file: Path) -> None:
    cache = StatCache(database, PACKS)
    part = Ingested(3, ChunkId(b"c" * 32), None, None, Stamp.of(file.stat()))
    cache.put(b"file", part, later(file))
    assert cache.key(b"file", file.stat()) is None


def test_forgotten_files_stay_forgotten(database: Path, file: Path) -> None:
    cache = StatCache(database, PACKS)
    cache.put(b"file", content(file), later(file))
    cache.save(PACKS)
    again = StatCache(database, PACKS)
    again.forget(b"file")
    again.save(PACKS)
    assert StatCache(database, PACKS).key(b"file", file.stat()) is None


def test_a_pack_that_is_gone_empties_it(database: Path, file: Path) -> None:
    cache = StatCache(database, PACKS[:1])
    cache.put(b"file", content(file), later(file))
    cache.save(PACKS[:2])
    assert StatCache(database, PACKS).key(b"file", file.stat()) is not None
    assert StatCache(database, PACKS[:1]).key(b"file", file.stat()) is None
    assert StatCache(database, PACKS).key(b"file", file.stat()) is None


def test_what_is_not_saved_is_not_known(database: Path, file: Path) -> None:
    StatCache(database, PACKS).put(b"file", content(file), later(file))
    assert StatCache(database, PACKS).key(b"file", file.stat()) is None
    assert not database.exists()


@pytest.mark.parametrize("damage", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_database_is_replaced(database: Path, file: Path, damage: bytes) -> None:
    database.write_bytes(damage)
    cache = StatCache(database, PACKS)
    cache.put(b"file", content(file), later(file))
    cache.save(PACKS)
    assert StatCache(database, PACKS).key(b"file", file.stat()) is not None


def test_a_newer_version_is_left_alone(database: Path, file: Path) -> None:
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    cache = StatCache(database, PACKS)
    cache.put(b"file", content(file), later(file))
    cache.save(PACKS)
    connection = sqlite3.connect(database)
    assert connection.execute("PRAGMA user_version").fetchone() == (99,)
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    connection.close()


def test_a_place_that_cannot_be_written_is_no_error(tmp_path: Path, file: Path) -> None:
    cache = StatCache(tmp_path / "missing" / "worktree.sqlite", PACKS)
    cache.put(b"file", content(file), later(file))
    cache.save(PACKS)
    assert cache.key(b"file", file.stat()) is not None


def folder_of(directory: Path, path: bytes = b"d") -> Folder:
    (found,) = Scanner(directory).scan()
    return found._replace(path=path)


TREE = TreeId(b"t" * 32)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "directory"
    made.mkdir()
    (made / "a").write_bytes(b"a")
    (made / "b").write_bytes(b"b")
    (made / "link").symlink_to("a")
    return made


def settled(database: Path, directory: Path) -> Folder:
    cache = StatCache(database, PACKS)
    folder = folder_of(directory)
    cache.settle(folder, TREE, [b"C" + b"a" * 32, b"M" + b"b" * 32, b""], {b"below": TreeId(b"\0" * 32)})
    cache.save(PACKS)
    return folder


def test_a_settled_directory_is_known_as_a_whole_and_file_by_file(database: Path, directory: Path) -> None:
    folder = settled(database, directory)
    cache = StatCache(database, PACKS)
    assert cache.is_settled(folder, TREE)
    assert cache.below(b"d", TREE) == {b"below": b"\0" * 32}
    assert cache.key(b"d/a", (directory / "a").stat()) == b"C" + b"a" * 32
    assert cache.key(b"d/b", (directory / "b").stat()) == b"M" + b"b" * 32
    assert cache.key(b"d/link", (directory / "link").lstat()) is None
    assert cache.names(b"d") == {b"a", b"b", b"link"}
    other = TreeId(b"o" * 32)
    assert not cache.is_settled(folder, other)
    assert cache.below(b"d", other) is None
    assert cache.below(b"elsewhere", TREE) is None


@pytest.mark.parametrize("change", [grow, replace_inode, Path.unlink])
def test_a_change_unsettles_a_directory(database: Path, directory: Path, change: object) -> None:
    settled(database, directory)
    change(directory / "b")  # type: ignore[operator]
    assert not StatCache(database, PACKS).is_settled(folder_of(directory), TREE)


def test_what_is_learned_unsettles_a_directory(database: Path, directory: Path) -> None:
    folder = settled(database, directory)
    cache = StatCache(database, PACKS)
    cache.put(b"d/a", content(directory / "a"), later(directory / "a"))
    assert not cache.is_settled(folder, TREE)
    cache.save(PACKS)
    again = StatCache(database, PACKS)
    assert not again.is_settled(folder, TREE)
    assert again.key(b"d/a", (directory / "a").stat()) == b"C" + b"c" * 32
    assert again.key(b"d/b", (directory / "b").stat()) == b"M" + b"b" * 32


def test_what_another_process_learned_meanwhile_stays(database: Path, directory: Path, file: Path) -> None:
    settled(database, directory)
    cache, settling, other = (StatCache(database, PACKS) for _ in range(3))
    other.put(b"d/file", content(file), later(file))
    other.save(PACKS)
    settling.settle(folder_of(directory), TREE, [b"", b"", b""], {})
    settling.save(PACKS)
    cache.put(b"d/a", content(directory / "a"), later(directory / "a"))
    cache.save(PACKS)
    again = StatCache(database, PACKS)
    assert again.key(b"d/file", file.stat()) == b"C" + b"c" * 32
    assert again.key(b"d/a", (directory / "a").stat()) == b"C" + b"c" * 32
    assert again.key(b"d/b", (directory / "b").stat()) == b"M" + b"b" * 32


@pytest.mark.parametrize("column", ["path", "names", "stamps", "contents", "tree", "below"])
def test_a_flipped_bit_makes_a_directory_unknown(database: Path, directory: Path, column: str) -> None:
    folder = settled(database, directory)
    connection = sqlite3.connect(database)
    [(value,)] = connection.execute(f"SELECT {column} FROM folders").fetchall()
    with connection:
        connection.execute(f"UPDATE folders SET {column} = ?", (bytes([value[0] ^ 1]) + value[1:],))
    connection.close()
    cache = StatCache(database, PACKS)
    assert not cache.is_settled(folder, TREE)
    assert cache.folders() == set()


def test_numbers_beyond_63_bits_are_kept_apart(database: Path, directory: Path) -> None:
    folder = folder_of(directory)
    plain = (directory / "a").stat()

    def with_inode(number: int) -> os.stat_result:
        return os.stat_result((plain.st_mode, number, *plain[2:]), {"st_mtime_ns": 1 << 63, "st_ctime_ns": -5})

    huge = folder._replace(statuses=[with_inode((1 << 64) - 2), *folder.statuses[1:]])
    cache = StatCache(database, PACKS)
    cache.settle(huge, TREE, [b"C" + b"a" * 32, b"", b""], {})
    cache.save(PACKS)
    again = StatCache(database, PACKS)
    assert again.is_settled(huge, TREE)
    assert again.key(b"d/a", with_inode((1 << 64) - 2)) == b"C" + b"a" * 32
    assert again.key(b"d/a", with_inode((1 << 64) - 3)) is None


def test_a_database_of_version_1_is_replaced(database: Path, file: Path) -> None:
    connection = sqlite3.connect(database)
    connection.executescript("CREATE TABLE files (path); CREATE TABLE packs (id); PRAGMA user_version = 1")
    connection.close()
    cache = StatCache(database, PACKS)
    cache.put(b"file", content(file), later(file))
    cache.save(PACKS)
    assert StatCache(database, PACKS).key(b"file", file.stat()) is not None
