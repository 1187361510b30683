"""The index: lookups, places, and a file that others delete, replace and damage."""

from __future__ import annotations

import gc
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import IndexCorruptedError, ReadOnlyError
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.store.index import LOCAL, Index, PackTable
from tests.stores import flip


def _id(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _table(number: int, *ids: int, kind: Kind = Kind.CHUNK) -> PackTable:
    entries = [Entry(_id(i), kind, 0, 16 + 10 * n, 10, 10) for n, i in enumerate(ids)]
    return PackId(_id(number)), 16 + 10 * len(ids), entries


@pytest.fixture
def tables() -> list[PackTable]:
    """What is on disk, as far as the index knows."""
    return []


@pytest.fixture
def index(tmp_path: Path, tables: list[PackTable]) -> Iterator[Index]:
    index = Index(tmp_path / "index.sqlite", tmp_path, lambda: tables)
    yield index
    index.close()


def _descriptors() -> int:
    return sum("index.sqlite" in str(p.readlink()) for p in Path("/proc/self/fd").iterdir() if p.is_symlink())


def test_local_copies_come_first(index: Index) -> None:
    index.add_packs([_table(1, 10, 11)], place="origin")
    index.add_packs([_table(2, 10)])
    assert [(c.place, c.pack, c.entry.id) for c in index.find(_id(10))] == [
        (LOCAL, _id(2), _id(10)),
        ("origin", _id(1), _id(10)),
    ]
    assert index.find_many([_id(10), _id(11), _id(12)])[_id(10)].place == LOCAL
    assert index.has([_id(10), _id(11), _id(12)]) == {_id(10), _id(11)}
    assert index.has([_id(10), _id(11)], local=True) == {_id(10)}
    assert index.find(_id(99)) == []


@pytest.mark.parametrize("order", [(1, 2, 3, 4), (4, 3, 2, 1), (2, 4, 1, 3)])
def test_a_look_for_many_gives_the_copies_that_are_read_first(index: Index, order: tuple[int, ...]) -> None:
    for number in order:
        index.add_packs([_table(number, 10, 11)], place="far" if number == 1 else LOCAL)
        index.add_packs([_table(10 + number, 12)], place=f"remote{number}")
    assert index.find_many([_id(10), _id(11), _id(12)]) == {_id(n): index.find(_id(n))[0] for n in (10, 11, 12)}


def test_lookups_of_many_ids(index: Index) -> None:
    index.add_packs([_table(1, *range(2000))])
    assert index.has(map(_id, range(-0, 3000))) == {_id(i) for i in range(2000)}
    assert len(index.find_many(_id(i) for i in range(1500, 2500))) == 500


def test_a_pack_may_be_at_many_places(index: Index) -> None:
    index.add_packs([_table(1, 10)])
    index.add_packs([_table(1, 10)], place="origin")
    index.remove_packs([PackId(_id(1)), PackId(_id(7))])
    assert [c.place for c in index.find(_id(10))] == ["origin"]
    index.remove_packs([PackId(_id(1))], place="origin")
    assert index.find(_id(10)) == []
    assert index.entries(PackId(_id(1))) == []


def test_the_first_copy_inside_a_pack_counts(index: Index) -> None:
    index.add_packs([_table(1, 10, 10)])
    assert [e.offset for e in index.entries(PackId(_id(1)))] == [16]


def test_a_local_table_replaces_what_a_remote_said(index: Index) -> None:
    index.add_packs([_table(1, 66)], place="evil")
    index.add_packs([_table(1, 10)])
    assert index.find(_id(66)) == []
    assert index.has([_id(10), _id(66)], local=True) == {_id(10)}
    index.add_packs([_table(1, 77)], place="evil")
    assert index.find(_id(77)) == []


def test_a_mended_pack_keeps_its_places(index: Index) -> None:
    for number in (1, 2):
        index.add_packs([_table(number, number)])
    index.add_packs([_table(1, 1)], place="origin")
    index.mend_pack(_table(1, 5), lambda: True)
    assert {c.place for c in index.find(_id(5))} == {LOCAL, "origin"}
    index.mend_pack(_table(3, 6), lambda: False)  # deleted meanwhile
    assert index.find(_id(6)) == []
    index.remove_packs([PackId(_id(n)) for n in (1, 2)])
    index.remove_packs([PackId(_id(1))], place="origin")
    index.add_packs([_table(4, 9)])
    assert [c.place for c in index.find(_id(9))] == [LOCAL]


def test_a_failed_write_leaves_nothing(index: Index) -> None:
    def broken() -> Iterator[PackTable]:
        yield _table(1, 10)
        raise RuntimeError("x")

    with pytest.raises(RuntimeError):
        index.add_packs(broken())
    assert index.packs() == {}
    index.add_packs([_table(1, 10)])


def test_abbreviated_ids(index: Index) -> None:
    index.add_packs([_table(1, *range(100), kind=Kind.COMMIT)])
    assert index.match(Kind.COMMIT, _id(5), _id(7)) == [_id(5), _id(6), _id(7)]
    assert len(index.match(Kind.COMMIT, _id(0), _id(99))) == 20
    assert index.match(Kind.TREE, _id(5), _id(7)) == []


# The file


@pytest.mark.parametrize("suffixes", [("",), ("", "-wal", "-shm"), ("-wal", "-shm", "")])
def test_a_deleted_file_is_made_again_at_once(
    index: Index, tables: list[PackTable], tmp_path: Path, suffixes: tuple[str, ...]
) -> None:
    index.add_packs([_table(1, 10)])
    tables.append(_table(1, 10))
    for suffix in suffixes:
        (tmp_path / f"index.sqlite{suffix}").unlink(missing_ok=True)
    assert [c.pack for c in index.find(_id(10))] == [_id(1)]
    index.add_packs([_table(2, 20)])
    other = Index(tmp_path / "index.sqlite", tmp_path, lambda: ())
    assert other.has([_id(10), _id(20)]) == {_id(10), _id(20)}
    assert other.check() == []
    other.close()


def test_a_replaced_file_is_noticed_by_all_threads(index: Index, tables: list[PackTable], tmp_path: Path) -> None:
    other = Index(tmp_path / "index.sqlite", tmp_path, lambda: tables)
    found: list[bool] = []
    go, ready = threading.Event(), threading.Event()

    def read() -> None:
        assert index.find(_id(10)) == []
        ready.set()
        go.wait()
        found.append(bool(index.find(_id(10))))

    thread = threading.Thread(target=read)
    thread.start()
    ready.wait()
    tables.append(_table(1, 10))
    other.rebuild()
    go.set()
    thread.join()
    assert found == [True]
    assert index.find(_id(10))
    index.close()
    other.add_packs([_table(2, 20)])  # closing the old file took nothing from the new one
    assert Index(tmp_path / "index.sqlite", tmp_path, lambda: ()).has([_id(20)]) == {_id(20)}
    other.close()


def test_a_file_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[PackTable]:
        yield _table(1, 10)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        Index(tmp_path / "index.sqlite", tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"not a database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_garbage_is_named_as_such(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "index.sqlite").write_bytes(data)
    with pytest.raises(IndexCorruptedError, match="doctor --rebuild-index"):
        Index(tmp_path / "index.sqlite", tmp_path, lambda: ())
    anew = Index(tmp_path / "index.sqlite", tmp_path, lambda: [_table(1, 10)], anew=True)
    assert anew.find(_id(10))
    anew.close()


@pytest.mark.parametrize("offset", [18, 19])
def test_a_header_that_forbids_writing_is_damage(index: Index, tmp_path: Path, offset: int) -> None:
    """SQLite takes it for a newer version's file, which it reads and never writes."""
    index.close()
    flip(tmp_path / "index.sqlite", offset, 2)
    with pytest.raises(IndexCorruptedError):
        Index(tmp_path / "index.sqlite", tmp_path, lambda: ())


def test_a_flipped_bit_in_a_name_of_the_schema_is_damage(index: Index, tmp_path: Path) -> None:
    index.close()
    path = tmp_path / "index.sqlite"
    data = path.read_bytes()
    flip(path, data.index(b"stored_size"), 0)
    with pytest.raises(IndexCorruptedError):
        Index(path, tmp_path, lambda: ())


def test_a_second_opening_keeps_the_locks_of_the_first(index: Index, tmp_path: Path) -> None:
    """Closing any descriptor of a file drops a process's POSIX locks on it; others would then delete the log."""
    index.add_packs([_table(1, 10)])
    Index(tmp_path / "index.sqlite", tmp_path, lambda: ()).close()
    program = (
        "import sys; from pathlib import Path; from shardfs.store.index import Index; folder = Path(sys.argv[1]);"
        "i = Index(folder / 'index.sqlite', folder, lambda: ()); assert i.packs(); i.close()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    assert (tmp_path / "index.sqlite-wal").exists()
    assert index.find(_id(10))


def test_an_empty_file_is_what_a_power_cut_leaves(tmp_path: Path) -> None:
    (tmp_path / "index.sqlite").touch()
    index = Index(tmp_path / "index.sqlite", tmp_path, lambda: [_table(1, 10)])
    assert index.find(_id(10))
    index.close()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "index.sqlite")
    connection.execute("PRAGMA user_version = 9")
    connection.execute("CREATE TABLE x (y)")
    connection.close()
    with pytest.raises(IndexCorruptedError, match="schema 9"):
        Index(tmp_path / "index.sqlite", tmp_path, lambda: ())


def test_an_impossible_row_hides_no_other(index: Index) -> None:
    index.add_packs([_table(1, 10), _table(2, 10)])
    index._connect().sqlite.execute("UPDATE entries SET kind = 77 WHERE pack = 1")
    assert [c.pack for c in index.find(_id(10))] == [_id(2)]
    assert index.find_many([_id(10)])[_id(10)].pack == _id(2)
    with pytest.raises(IndexCorruptedError, match="impossible"):
        index.entries(PackId(_id(1)))


def test_threads_that_end_leave_no_descriptors(index: Index) -> None:
    index.find(_id(1))
    before = _descriptors()
    for _ in range(30):
        thread = threading.Thread(target=index.find, args=(_id(1),))
        thread.start()
        thread.join()
    gc.collect()
    assert _descriptors() <= before + 1


def test_a_private_index_leaves_the_store_alone(index: Index, tmp_path: Path) -> None:
    index.add_packs([_table(1, 10)])
    mine = Index.private(tmp_path / "index.sqlite", lambda: ())
    assert mine.is_private
    assert mine.find(_id(10))  # also what is in the log and not yet in the file
    mine.add_packs([_table(2, 20)])
    assert index.find(_id(20)) == []
    folder = mine._file.path.parent
    mine.close()
    assert not folder.exists()
    (tmp_path / "index.sqlite").write_bytes(b"x" * 4096)
    anew = Index.private(tmp_path / "index.sqlite", lambda: [_table(3, 30)])
    assert anew.find(_id(30))
    anew.close()


def test_a_directory_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(ReadOnlyError):
        Index(tmp_path / "index.sqlite", tmp_path, lambda: ())
    assert list(tmp_path.iterdir()) == []


def test_a_forked_child_opens_its_own(tmp_path: Path) -> None:
    script = """
import os, sys, pathlib
from shardfs.store.index import Index
from shardfs.formats.ids import PackId
path = pathlib.Path(sys.argv[1])
index = Index(path / "index.sqlite", path, lambda: ())
parent = index._connect()
child = os.fork()
if child == 0:
    assert index._connect() is not parent
    index.add_packs([(PackId(bytes(32)), 1, ())])
    os._exit(0)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 0
assert index.packs() == {bytes(32): 1}
index.close()
"""
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=60)
