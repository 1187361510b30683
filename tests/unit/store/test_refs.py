"""Refs on disk: compare-and-swap, names in each other's way, logs, damage."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import AlreadyExistsError, MalformedError, RefChangedError, RefCorruptedError, StoreError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import Head
from shardfs.store.layout import Layout
from shardfs.store.refs import RefStore
from shardfs.store.store import Store

ONE, TWO, THREE = (CommitId(bytes([i]) * 32) for i in (1, 2, 3))
MAIN = "refs/heads/main"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "s")
    yield store
    store.close()


@pytest.fixture
def refs(store: Store) -> RefStore:
    return store.refs


@pytest.fixture
def layout(store: Store) -> Layout:
    return store.layout


def _listed(layout: Layout) -> dict[str, CommitId]:
    return ref_format.refs_from_bytes(layout.info_refs.read_bytes())[1]


def test_a_life(refs: RefStore, layout: Layout) -> None:
    assert refs.get(MAIN) is None
    refs.move(MAIN, None, ONE, author="Ann", message="first")
    refs.move(MAIN, ONE, TWO)
    assert refs.get(MAIN) == refs.head_commit() == TWO
    assert refs.list() == _listed(layout) == {MAIN: TWO}
    refs.move(MAIN, TWO, None)
    assert refs.get(MAIN) is None
    assert _listed(layout) == {}
    assert [(line.old, line.new) for line in refs.log(MAIN)] == [(TWO, None), (ONE, TWO), (None, ONE)]
    assert (refs.log(MAIN)[-1].author, refs.log(MAIN)[-1].message) == ("Ann", "first")


def test_a_ref_that_nobody_deleted_is_no_new_branch(refs: RefStore, layout: Layout) -> None:
    """Else the next commit would start a history of its own."""
    refs.move(MAIN, None, ONE)
    layout.ref(MAIN).unlink()
    with pytest.raises(RefCorruptedError, match="missing"):
        refs.head_commit()
    with pytest.raises(RefCorruptedError):
        refs.move(MAIN, None, TWO)
    assert refs.restore(MAIN) == ONE
    refs.move(MAIN, ONE, None)
    assert refs.get(MAIN) is None


@pytest.mark.parametrize("expected", [None, TWO])
def test_a_lost_swap_says_where_the_ref_is(refs: RefStore, expected: CommitId | None) -> None:
    refs.move(MAIN, None, ONE)
    with pytest.raises(RefChangedError, match="01010101") as caught:
        refs.move(MAIN, expected, THREE)
    assert caught.value.current == ONE
    assert refs.get(MAIN) == ONE
    assert len(refs.log(MAIN)) == 1


def test_a_swap_of_what_is_gone(refs: RefStore) -> None:
    with pytest.raises(RefChangedError, match="gone") as caught:
        refs.move(MAIN, ONE, TWO)
    assert caught.value.current is None


def test_standing_still_is_no_move(refs: RefStore) -> None:
    refs.move(MAIN, None, ONE)
    refs.move(MAIN, ONE, ONE)
    refs.move("refs/heads/none", None, None)
    assert len(refs.log(MAIN)) == 1


@pytest.mark.parametrize("name", ["main", "refs/heads/../../config.toml", "HEAD", "refs/heads/"])
def test_names_are_checked_at_every_door(refs: RefStore, name: str) -> None:
    for door in (lambda: refs.get(name), lambda: refs.move(name, None, ONE), lambda: refs.log(name)):
        with pytest.raises(MalformedError):
            door()


def test_names_in_each_others_way(refs: RefStore) -> None:
    refs.move("refs/heads/a", None, ONE)
    with pytest.raises(AlreadyExistsError, match="refs/heads/a exists"):
        refs.move("refs/heads/a/b/c", None, ONE)
    refs.move("refs/heads/x/y/z", None, ONE)
    with pytest.raises(AlreadyExistsError, match="below"):
        refs.move("refs/heads/x/y", None, ONE)
    assert refs.get("refs/heads/a/b/c") is None
    assert refs.get("refs/heads/x/y") is None
    assert refs.log("refs/heads/x/y") == []
    assert refs.names() == ["refs/heads/a", "refs/heads/x/y/z"]


def test_a_deleted_name_is_in_nobodys_way(refs: RefStore, layout: Layout) -> None:
    refs.move("refs/heads/a", None, ONE)
    refs.move("refs/heads/a", ONE, None)
    refs.move("refs/heads/a/b/c", None, TWO)
    refs.move("refs/heads/a/b/c", TWO, None)
    refs.move("refs/heads/a", None, THREE)
    assert refs.list() == _listed(layout) == {"refs/heads/a": THREE}
    assert [line.new for line in refs.log("refs/heads/a")] == [THREE, None, ONE]
    assert [line.new for line in refs.log("refs/heads/a/b/c")] == [None, TWO]


def test_listing_holds_branches_and_tags_only(refs: RefStore, layout: Layout) -> None:
    for name in (MAIN, "refs/tags/v1", "refs/remotes/origin/main"):
        refs.move(name, None, ONE)
    assert set(_listed(layout)) == {MAIN, "refs/tags/v1"}
    assert list(refs.list("refs/tags/")) == ["refs/tags/v1"]


def test_foreign_files_among_the_refs_are_none(refs: RefStore, layout: Layout) -> None:
    refs.move(MAIN, None, ONE)
    for name in (b"main.lock", b".hidden", b"caf\xff", b"with blank"):
        Path(os.fsdecode(os.fsencode(layout.root) + b"/refs/heads/" + name)).write_bytes(b"x")
    assert refs.names() == [MAIN]


@pytest.mark.parametrize("data", [b"", b"x", b"0" * 64, b"../../etc/passwd\n", b"\0" * 65])
def test_a_damaged_ref(refs: RefStore, layout: Layout, data: bytes) -> None:
    refs.move(MAIN, None, ONE)
    refs.move(MAIN, ONE, TWO)
    layout.ref(MAIN).write_bytes(data)
    for door in (lambda: refs.get(MAIN), lambda: refs.list(), lambda: refs.move(MAIN, TWO, THREE)):
        with pytest.raises(RefCorruptedError, match=r"main is damaged.*doctor --fix"):
            door()
    assert refs.names() == [MAIN]
    refs.move("refs/heads/other", None, ONE)  # the listing leaves the damaged one out
    assert set(_listed(layout)) == {"refs/heads/other"}
    assert refs.restore(MAIN) == refs.get(MAIN) == TWO


def test_torn_lines_of_a_log(refs: RefStore, layout: Layout) -> None:
    refs.move(MAIN, None, ONE)
    with layout.log(MAIN).open("ab") as file:
        file.write(b'{"old": "0101')  # a crash in the middle of a line
    refs.move(MAIN, ONE, TWO)
    assert [line.new for line in refs.log(MAIN)] == [TWO, ONE]


def test_a_log_that_is_no_file(refs: RefStore, layout: Layout) -> None:
    layout.log(MAIN).mkdir(parents=True)
    with pytest.raises(StoreError, match="log"):
        refs.log(MAIN)
    refs.move(MAIN, None, ONE)  # moves all the same: the log only informs
    assert refs.get(MAIN) == ONE


@pytest.mark.parametrize("data", [None, b"", b"main\n", b"ref: refs/heads/..\n"])
def test_a_damaged_head(refs: RefStore, layout: Layout, data: bytes | None) -> None:
    refs.move(MAIN, None, ONE)
    layout.head.unlink()
    if data is not None:
        layout.head.write_bytes(data)
    with pytest.raises(RefCorruptedError, match="HEAD"):
        refs.head()
    refs.move(MAIN, ONE, TWO)
    assert ref_format.refs_from_bytes(layout.info_refs.read_bytes()) == (None, {MAIN: TWO})
    assert refs.restore_head() == refs.head() == Head(MAIN)


def test_head_moves(refs: RefStore, layout: Layout) -> None:
    refs.set_head(Head("refs/heads/new"))
    assert refs.head_commit() is None
    assert ref_format.refs_from_bytes(layout.info_refs.read_bytes())[0] == "refs/heads/new"
    refs.set_head(Head(None, TWO))
    assert refs.head_commit() == TWO


def test_a_move_that_is_done_is_not_called_failed(
    refs: RefStore, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk after the ref: the caller would think the commit is not there, and the listing catches up later."""
    real = os.fsync
    calls = 0

    def full_after_the_ref(fd: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise OSError(errno.ENOSPC, "full")
        real(fd)

    monkeypatch.setattr(os, "fsync", full_after_the_ref)
    refs.move(MAIN, None, ONE)
    monkeypatch.undo()
    assert refs.get(MAIN) == ONE
    assert _listed(layout) == {}
    refs.move(MAIN, ONE, TWO)
    assert _listed(layout) == {MAIN: TWO}


def test_of_many_threads_one_wins(refs: RefStore) -> None:
    refs.move(MAIN, None, ONE)
    won: list[int] = []
    start = threading.Barrier(8)

    def race(number: int) -> None:
        start.wait()
        try:
            refs.move(MAIN, ONE, CommitId(bytes([100 + number]) * 32))
        except RefChangedError:
            return
        won.append(number)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert refs.get(MAIN) == bytes([100 + won[0]]) * 32
