"""Changes between two trees."""

from __future__ import annotations

import pytest

from shardfs.diff.trees import ChangeKind, changes, shared_bytes
from shardfs.formats.ids import Kind, TreeId
from shardfs.formats.tree import EMPTY_TREE, DirEntry, FileEntry, Tree
from shardfs.history.objects import Objects
from tests.memory_objects import Folder, Memory
from tests.stores import noise

A, M, D = ChangeKind.ADDED, ChangeKind.MODIFIED, ChangeKind.DELETED
OLD: Folder = {b"f": b"1", b"d": {b"x": b"1", b"y": b"2"}}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (OLD, OLD, []),
        (OLD, {**OLD, b"f": b"2"}, [(M, b"f")]),
        (OLD, {b"d": OLD[b"d"]}, [(D, b"f")]),
        (OLD, {b"f": b"1", b"d": {b"x": b"1"}}, [(D, b"d/y")]),
        (OLD, {b"f": b"1"}, [(D, b"d/x"), (D, b"d/y")]),
        (OLD, {b"f": b"1", b"d": {}}, [(D, b"d/x"), (D, b"d/y"), (A, b"d")]),
        ({b"d": {}}, {b"d": {b"x": b"1"}}, [(D, b"d"), (A, b"d/x")]),
        (OLD, {b"f": {b"z": b""}, b"d": OLD[b"d"]}, [(D, b"f"), (A, b"f/z")]),
        (OLD, {b"f": b"1", b"d": b"3"}, [(D, b"d/x"), (D, b"d/y"), (A, b"d")]),
        (OLD, {b"f": "link", b"d": OLD[b"d"]}, [(M, b"f")]),
        ({}, {b"d": {b"e": {}}}, [(A, b"d/e")]),
    ],
)
def test_changes(old: Folder, new: Folder, expected: list[tuple[ChangeKind, bytes]]) -> None:
    memory = Memory()
    found = changes(Objects(memory), memory.put_tree(old), memory.put_tree(new))
    assert [(c.kind, b"/".join(c.path)) for c in found] == expected


def test_the_empty_tree() -> None:
    memory = Memory()
    root = memory.put_tree({b"a": b"1"})
    assert [c.kind for c in changes(Objects(memory), None, root)] == [A]
    assert [c.kind for c in changes(Objects(memory), root, None)] == [D]
    assert list(changes(Objects(memory), None, None)) == []


def test_equal_directories_are_never_read() -> None:
    memory = Memory()
    same: Folder = {b"%d" % i: b"x" for i in range(100)}
    old, new = memory.put_tree({b"same": same, b"a": b"1"}), memory.put_tree({b"same": same, b"a": b"2"})
    memory.reads.clear()
    assert len(list(changes(Objects(memory), old, new))) == 1
    assert sorted(memory.reads) == sorted([old, new])


def test_depth_is_no_limit() -> None:
    memory = Memory()
    roots: list[TreeId] = []
    for content in (b"1", b"2"):
        memory.put(Kind.TREE, EMPTY_TREE.to_bytes())
        tree = Tree.of([memory.put_file(b"f", content)])
        for _ in range(5000):
            tree = Tree.of([DirEntry(b"d", TreeId(memory.put(Kind.TREE, tree.to_bytes())))])
        roots.append(TreeId(memory.put(Kind.TREE, tree.to_bytes())))
    old, new = roots
    [change] = changes(Objects(memory), old, new)
    assert len(change.path) == 5001


def test_bytes_of_common_chunks() -> None:
    memory = Memory()
    old = memory.put_file(b"f", noise(1, 1000), 100)
    new = memory.put_file(b"f", noise(1, 1000)[:350] + noise(2, 700), 100)
    assert shared_bytes(Objects(memory), old, new) == 300
    assert shared_bytes(Objects(memory), FileEntry(b"e", 0), new) == 0
