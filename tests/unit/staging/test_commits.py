"""Snapshots, what they commit, and what is left afterwards; other bases; the command line's door."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from shardfs.errors import AreaError, FileChangedError
from shardfs.formats.ids import Kind
from shardfs.formats.tree import EMPTY_TREE, DirEntry, LinkEntry
from shardfs.staging.area import Area
from shardfs.staging.nodes import ROOT, PathKey
from tests.areas import Flat, MemoryStore, files, rows, shown, write

BASE: Flat = {
    (b"a",): b"alpha",
    (b"l",): "a",
    (b"d", b"b"): b"beta",
    (b"d", b"deep", b"c"): b"gamma",
    (b"e",): None,
    (b"untouched", b"x"): b"x",
}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def area(tmp_path: Path, store: MemoryStore) -> Iterator[Area]:
    with store.area(tmp_path / "area", store.put(BASE)) as area:
        yield area


def kinds(area: Area) -> dict[PathKey, str]:
    return {change.path: change.kind.value for change in area.changes()}


def test_changes(area: Area) -> None:
    write(area, b"a", b"ALPHA")
    write(area, b"new", b"n")
    area.unlink(ROOT, b"l")
    write(area, b"l", b"a file now")
    area.rmdir(ROOT, b"e")
    area.mkdir(ROOT, b"made", 0o755)
    folder = area.lookup(ROOT, b"d").ino
    area.unlink(area.lookup(folder, b"deep").ino, b"c")
    assert kinds(area) == {
        (b"a",): "modified",
        (b"new",): "added",
        (b"l",): "modified",
        (b"e",): "deleted",
        (b"made",): "added",
        (b"d", b"deep", b"c"): "deleted",
    }
    [new] = [change for change in area.changes() if change.path == (b"new",)]
    assert (new.old, new.new, new.size) == (None, None, 1)


def test_changes_of_moved_and_replaced_directories_are_listed_file_by_file(area: Area) -> None:
    area.rename(ROOT, b"d", ROOT, b"m")
    write(area, b"d", b"a file where a directory was")
    assert kinds(area) == {
        (b"d",): "added",
        (b"d", b"b"): "deleted",
        (b"d", b"deep", b"c"): "deleted",
        (b"m", b"b"): "added",
        (b"m", b"deep", b"c"): "added",
    }


def test_a_commit_takes_everything_and_leaves_no_change(area: Area, store: MemoryStore) -> None:
    write(area, b"a", b"ALPHA")
    area.rename(ROOT, b"d", ROOT, b"m")
    area.mkdir(ROOT, b"empty", 0o755)
    area.symlink(ROOT, b"l2", b"m/b")
    write(area, b"tool", b"#!", mode=0o755)
    expected = shown(area)
    assert store.commit(area) == expected
    assert shown(area) == expected
    assert kinds(area) == {}
    assert files(area) == []
    assert area.snapshot().unchanged


def test_inode_numbers_stay_during_a_session_and_rows_vanish_after_it(
    area: Area, store: MemoryStore, tmp_path: Path
) -> None:
    write(area, b"a", b"ALPHA")
    folder = area.mkdir(ROOT, b"new", 0o755)
    write(area, b"x", b"x", folder.ino)
    inos = {node.name: node.ino for node in area.list(ROOT)}
    store.commit(area)
    assert {node.name: node.ino for node in area.list(ROOT)} == inos
    assert area.stat(folder.ino).is_dir
    area.close()
    with store.area(tmp_path / "area", session=False) as again:
        assert rows(again) == 0
        assert shown(again) == BASE | {(b"a",): b"ALPHA", (b"new", b"x"): b"x"}
        again.put_entry((b"y",), store.file(b"", b"y"))
        store.commit(again)
        assert rows(again) == 0, "without a session rows vanish with the commit"


def test_unchanged_subtrees_are_not_loaded(area: Area, store: MemoryStore) -> None:
    write(area, b"n", b"n", area.lookup(ROOT, b"d").ino)
    untouched = area.lookup(ROOT, b"untouched").entry
    assert isinstance(untouched, DirEntry)
    store.loaded.clear()
    store.commit(area)
    list(area.changes())
    assert untouched.tree not in store.loaded


def test_a_snapshot_holds_what_it_saw(area: Area, store: MemoryStore) -> None:
    write(area, b"a", b"first")
    write(area, b"gone", b"unlinked meanwhile")
    snapshot = area.snapshot()
    write(area, b"a", b"second")
    area.unlink(ROOT, b"gone")
    write(area, b"late", b"late")
    assert [file.path for file in snapshot.files] == [(b"a",), (b"gone",)]
    tree_id = store.build(snapshot)
    assert store.flat(tree_id) == BASE | {(b"a",): b"first", (b"gone",): b"unlinked meanwhile"}
    area.mark_committed(snapshot, tree_id)
    assert len(files(area)) == 4
    snapshot.close()
    assert len(files(area)) == 2, "what only the snapshot needed is deleted with it"
    assert shown(area) == BASE | {(b"a",): b"second", (b"late",): b"late"}
    assert kinds(area) == {(b"a",): "modified", (b"gone",): "deleted", (b"late",): "added"}


ACTIONS: dict[str, Callable[[Area], object]] = {
    "rewrite": lambda area: write(area, b"f", b"later"),
    "unlink": lambda area: area.unlink(ROOT, b"f"),
    "rename": lambda area: area.rename(ROOT, b"f", ROOT, b"g"),
    "rename over": lambda area: area.rename(ROOT, b"f", ROOT, b"a"),
    "chmod": lambda area: area.chmod(area.lookup(ROOT, b"f").ino, 0o755),
    "move directory": lambda area: area.rename(ROOT, b"d", ROOT, b"moved"),
    "remove directory": lambda area: area.remove((b"d",)),
    "restore": lambda area: area.rename(ROOT, b"was l", ROOT, b"l"),
    "make again": lambda area: write(area, b"l", b"again"),
    "swap": lambda area: swap(area),
}


def swap(area: Area) -> None:
    area.rename(ROOT, b"f", area.lookup(ROOT, b"d").ino, b"f")
    write(area, b"f", b"x")


@pytest.mark.parametrize("name", ACTIONS)
def test_what_happens_between_snapshot_and_mark_stays_a_change(area: Area, store: MemoryStore, name: str) -> None:
    write(area, b"f", b"file")
    write(area, b"n", b"new", area.lookup(ROOT, b"d").ino)
    area.rename(ROOT, b"l", ROOT, b"was l")
    with area.snapshot() as snapshot:
        tree_id = store.build(snapshot)
        ACTIONS[name](area)
        expected = shown(area)
        area.mark_committed(snapshot, tree_id)
    assert shown(area) == expected
    changed = store.flat(tree_id) != expected
    assert bool(kinds(area)) == changed
    assert changed
    assert store.commit(area) == expected
    assert kinds(area) == {}


def test_mark_committed_wants_the_tree_that_was_built(area: Area, store: MemoryStore) -> None:
    with area.snapshot() as snapshot:
        store.build(snapshot)
        with pytest.raises(ValueError, match="built"):
            area.mark_committed(snapshot, EMPTY_TREE.id)


def test_a_commit_that_never_happens_changes_nothing(area: Area, store: MemoryStore) -> None:
    write(area, b"f", b"file")
    with area.snapshot() as snapshot:
        store.build(snapshot)
    assert kinds(area) == {(b"f",): "added"}
    assert store.commit(area)[b"f",] == b"file"


def test_an_ingest_that_answers_another_size_is_refused(area: Area, store: MemoryStore) -> None:
    write(area, b"f", b"file")
    with area.snapshot() as snapshot, pytest.raises(FileChangedError, match="f changed"):
        snapshot.build(lambda file: replace(store.ingest(file), size=99), store.put_tree)


def test_a_private_file_that_is_damaged_is_not_committed(area: Area, store: MemoryStore) -> None:
    write(area, b"f", b"file")
    [path] = (area.directory / "files").iterdir()
    os.truncate(path, 2)
    with area.snapshot() as snapshot, pytest.raises(AreaError) as caught:
        store.build(snapshot)
    assert caught.value.errno == errno.EIO
    assert str(caught.value).startswith("f:")


def test_the_first_commit(tmp_path: Path, store: MemoryStore) -> None:
    with store.area(tmp_path / "new") as area:
        assert area.base is None
        assert not area.snapshot().unchanged
        assert store.commit(area) == {}
        write(area, b"a", b"alpha")
        assert store.commit(area) == {(b"a",): b"alpha"}
        assert area.base is not None


def test_put_and_remove(area: Area, store: MemoryStore) -> None:
    area.put_entry((b"x", b"y", b"z"), store.file(b"", b"zeta"), mtime_ns=99)
    assert area.find((b"x", b"y", b"z")).mtime_ns == 99
    area.put_entry((b"a", b"below a file"), store.file(b"", b"1"))
    area.put_entry((b"d",), LinkEntry(b"", b"x"))
    expected: Flat = {
        (b"x", b"y", b"z"): b"zeta",
        (b"a", b"below a file"): b"1",
        (b"d",): "x",
        (b"l",): "a",
        (b"e",): None,
        (b"untouched", b"x"): b"x",
    }
    assert shown(area) == expected
    area.remove((b"x", b"y"))
    assert shown(area)[b"x",] is None
    area.remove((b"x",))
    with pytest.raises(AreaError):
        area.remove((b"x",))
    with pytest.raises(AreaError):
        area.remove(())
    with pytest.raises(AreaError):
        area.put_entry((), store.file(b"", b""))
    with pytest.raises(AreaError):
        area.put_entry((b"..",), store.file(b"", b""))
    del expected[b"x", b"y", b"z"]
    assert store.commit(area) == expected


def test_putting_what_the_base_has_leaves_nothing(area: Area, store: MemoryStore) -> None:
    store_entry = store.file(b"", b"alpha")
    area.put_entry((b"a",), store_entry)
    assert rows(area) == 0
    write(area, b"a", b"changed")
    area.put_entry((b"a",), store_entry)
    area.remove((b"d", b"deep"))
    deep = store.put({(b"c",): b"gamma"})
    area.put_entry((b"d", b"deep"), DirEntry(b"", deep))
    assert kinds(area) == {}
    assert files(area) == []


def test_put_entries_takes_many_at_once(area: Area, store: MemoryStore) -> None:
    write(area, b"written", b"w")
    area.remove((b"d", b"b"))
    before = shown(area)
    new: dict[tuple[bytes, ...], bytes] = {(b"many", b"%04d" % i): b"%d" % i for i in range(2500)}
    over = {(b"a",): b"A", (b"d", b"b"): b"again", (b"d", b"more"): b"m", (b"written",): b"W", (b"l",): b"no link"}
    puts = [*new.items(), *over.items(), ((b"d", b"more"), b"last wins")]
    area.put_entries((path, store.file(b"", data), 5) for path, data in puts)
    expected = {**before, **dict(puts)}
    assert shown(area) == expected
    assert store.commit(area) == expected
    assert kinds(area) == {}


def test_a_commit_of_many_files_leaves_a_small_database(area: Area, store: MemoryStore, tmp_path: Path) -> None:
    area.close()
    with store.area(tmp_path / "area", session=False) as other:
        entry = store.file(b"", b"the same")
        other.put_entries(((b"many", b"%05d" % i + b"x" * 200), entry, None) for i in range(5000))
        with other.snapshot() as snapshot:
            other.mark_committed(snapshot, snapshot.build(store.ingest, store.put_tree))
        assert len(other.list(other.find((b"many",)).ino)) == 5000
    assert (tmp_path / "area/area.sqlite").stat().st_size < 200_000


def test_put_entries_replaces_a_changed_directory(area: Area, store: MemoryStore) -> None:
    folder = area.lookup(ROOT, b"d").ino
    write(area, b"n", b"n", folder)
    area.put_entries([((b"d",), DirEntry(b"", store.put({(b"b",): b"beta"})), None)])
    assert kinds(area) == {(b"d", b"deep", b"c"): "deleted"}


def test_put_over_a_file_that_is_being_written(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"f", 0o644)
    file.write(0, b"from the mount")
    area.put_entry((b"f",), store.file(b"", b"from the command line"))
    file.write(0, b"FROM")
    assert file.read(0, 20) == b"FROM the mount"
    file.release()
    assert store.commit(area)[b"f",] == b"from the command line"


def test_two_processes_see_the_same(area: Area, store: MemoryStore, tmp_path: Path) -> None:
    with store.area(tmp_path / "area", session=False) as other:
        write(area, b"a", b"through the mount")
        other.put_entry((b"b",), store.file(b"", b"added"))
        other.remove((b"d",))
        assert shown(area) == shown(other)
        reader = area.open_file(area.lookup(ROOT, b"a").ino, os.O_RDONLY)
        expected = shown(area)
        assert store.commit(other) == expected
        assert shown(area) == expected
        assert reader.read(0, 100) == b"through the mount"
        reader.release()
        assert kinds(area) == {}


def test_rebase_keeps_changes_and_lets_the_rest_follow(area: Area, store: MemoryStore) -> None:
    write(area, b"mine", b"mine")
    write(area, b"a", b"mine too")
    area.unlink(ROOT, b"l")
    folder = area.lookup(ROOT, b"d").ino
    write(area, b"n", b"in d", folder)
    made = area.mkdir(ROOT, b"both", 0o755).ino
    write(area, b"m", b"m", made)
    theirs: Flat = {
        (b"a",): b"theirs",
        (b"l",): "elsewhere",
        (b"d", b"b"): b"changed",
        (b"both", b"t"): b"t",
        (b"untouched", b"y"): b"y",
    }
    area.rebase(store.put(theirs), 5)
    assert shown(area) == {
        (b"mine",): b"mine",
        (b"a",): b"mine too",
        (b"d", b"b"): b"changed",
        (b"d", b"n"): b"in d",
        (b"both", b"t"): b"t",
        (b"both", b"m"): b"m",
        (b"untouched", b"y"): b"y",
    }
    assert kinds(area) == {
        (b"mine",): "added",
        (b"a",): "modified",
        (b"l",): "deleted",
        (b"d", b"n"): "added",
        (b"both", b"m"): "added",
    }
    assert area.find((b"untouched", b"y")).mtime_ns == 5


def test_rebase_without_changes_is_the_new_base(area: Area, store: MemoryStore) -> None:
    write(area, b"n", b"n", area.lookup(ROOT, b"d").ino)
    store.commit(area)
    theirs: Flat = {(b"z",): b"z", (b"untouched", b"x"): b"x"}
    area.rebase(store.put(theirs), 0)
    assert shown(area) == theirs
    assert kinds(area) == {}
    area.rebase(None, 0)
    assert shown(area) == {}


def test_rebase_leaves_an_open_file_that_nobody_else_changed(area: Area, store: MemoryStore) -> None:
    file = area.create(ROOT, b"log", 0o644)
    file.write(0, b"one\n")
    file.fsync()
    theirs = store.commit(area) | {(b"pushed",): b"by others"}
    area.rebase(store.put(theirs), 0)
    file.write(4, b"two\n")
    file.release()
    assert shown(area) == theirs | {(b"log",): b"one\ntwo\n"}


def test_rebase_keeps_changes_in_a_directory_that_is_gone(area: Area, store: MemoryStore) -> None:
    folder = area.lookup(ROOT, b"d").ino
    write(area, b"n", b"n", folder)
    area.unlink(folder, b"b")
    area.rebase(store.put({(b"z",): b"z"}), 0)
    assert shown(area) == {(b"z",): b"z", (b"d", b"n"): b"n"}
    assert kinds(area) == {(b"d", b"n"): "added"}


def test_rebase_onto_the_commit_that_a_crash_did_not_mark(area: Area, store: MemoryStore) -> None:
    """The branch moved and the process died: the rows say again what the new base says."""
    write(area, b"f", b"file")
    area.put_entry((b"g", b"h"), store.file(b"", b"h"))
    area.rename(ROOT, b"d", ROOT, b"m")
    with area.snapshot() as snapshot:
        tree_id = store.build(snapshot)
    area.rebase(tree_id, 0)
    assert shown(area) == store.flat(tree_id)
    assert store.commit(area) == store.flat(tree_id)
    assert kinds(area) == {}


def test_reset(area: Area, store: MemoryStore) -> None:
    write(area, b"a", b"changed")
    file = area.open_file(area.lookup(ROOT, b"a").ino, os.O_RDWR)
    area.reset(store.put({(b"only",): b"o"}))
    assert shown(area) == {(b"only",): b"o"}
    assert rows(area) == 0
    file.write(0, b"nowhere")
    file.release()
    assert shown(area) == {(b"only",): b"o"}
    assert files(area) == []


def test_what_is_written_after_a_reset_is_not_taken_for_what_was_there_before(area: Area, store: MemoryStore) -> None:
    base = area.base
    write(area, b"a", b"before")
    area.reset(base)
    write(area, b"a", b"after")
    area.sync()
    assert shown(area)[b"a",] == b"after"
    assert len(files(area)) == 1


def test_references_name_all_that_the_area_needs(area: Area, store: MemoryStore) -> None:
    entry = store.file(b"", b"added")
    area.put_entry((b"new",), entry)
    area.rename(ROOT, b"d", ROOT, b"m")
    found = set(area.references())
    assert (Kind.CHUNK, entry.chunk) in found
    assert {kind for kind, _ in found} == {Kind.CHUNK, Kind.TREE}
    moved = area.lookup(ROOT, b"m").entry
    assert isinstance(moved, DirEntry)
    assert (Kind.TREE, moved.tree) in found
    assert (Kind.TREE, area.base) in found
