"""Versions, revisions and tree changes against plain models."""

from __future__ import annotations

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from shardfs.diff.trees import ChangeKind, changes
from shardfs.formats.ids import CommitId
from shardfs.formats.tree import DirEntry, TreeEntry
from shardfs.history import paths, walk
from shardfs.history.objects import Objects
from shardfs.history.revisions import resolve
from shardfs.history.versions import VersionList
from tests.memory_objects import Folder, Memory

NAME = st.sampled_from([b"a", b"b", b"b.c", b"\xff"])
FOLDERS: st.SearchStrategy[Folder] = st.recursive(
    st.dictionaries(NAME, st.sampled_from([b"", b"1", b"2"]) | st.sampled_from(["x", "y"]), max_size=3),
    lambda inner: st.dictionaries(NAME, st.sampled_from([b"1", "x"]) | inner, max_size=4),
    max_leaves=12,
)


def _flat(objects: Objects, memory: Memory, folder: Folder) -> Mapping[paths.Path, TreeEntry]:
    """Files, links and empty directories by path; the root itself is none."""
    found = dict(paths.walk(objects, memory.put_tree(folder)))
    return {p: e for p, e in found.items() if not isinstance(e, DirEntry) or not objects.tree(e.tree).entries}


@given(FOLDERS, FOLDERS)
def test_changes_turn_one_tree_into_the_other(old: Folder, new: Folder) -> None:
    memory = Memory()
    objects = Objects(memory)
    before, after = _flat(objects, memory, old), _flat(objects, memory, new)
    found = list(changes(objects, memory.put_tree(old), memory.put_tree(new)))
    now = dict(before)
    for change in found:
        assert now.pop(change.path, None) == change.old
        assert (change.kind is ChangeKind.ADDED) == (change.old is None)
        assert (change.kind is ChangeKind.DELETED) == (change.new is None)
        if change.new is not None:
            # What was below or above is gone by now, so that the change can be made on a disk.
            assert not any(p[: len(change.path)] == change.path or change.path[: len(p)] == p for p in now)
            now[change.path] = change.new
    assert now == after
    assert {c.path for c in found} == {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    back = list(changes(objects, memory.put_tree(new), memory.put_tree(old)))
    assert {(c.path, c.old, c.new) for c in back} == {(c.path, c.new, c.old) for c in found}


@st.composite
def histories(draw: st.DrawFn) -> tuple[Memory, list[CommitId]]:
    """Commits with up to three earlier parents, with clocks that go wrong."""
    memory = Memory()
    ids: list[CommitId] = []
    for number in range(draw(st.integers(1, 15))):
        chosen = draw(st.lists(st.sampled_from(ids), max_size=3, unique=True)) if ids else []
        ids.append(memory.put_commit(chosen, f"Number {number}", draw(st.integers(-3, 20))))
    return memory, ids


@given(histories(), st.data())
def test_versions_that_grow_equal_versions_made_anew(value: tuple[Memory, list[CommitId]], data: st.DataObject) -> None:
    memory, ids = value
    known = VersionList(Objects(memory))
    for tip in data.draw(st.lists(st.none() | st.sampled_from(ids), max_size=12)):
        assert known.at(tip) == VersionList(Objects(memory)).at(tip)
        assert [v.number for v in known.at(tip)] == list(range(1, len(known.at(tip)) + 1))
        line = [id_ for id_, _ in walk.first_parents(Objects(memory), tip)]
        assert [v.commit for v in known.at(tip)] == line[::-1]


@given(histories())
def test_ancestors_against_a_plain_search(value: tuple[Memory, list[CommitId]]) -> None:
    memory, ids = value
    objects = Objects(memory)
    reach: dict[CommitId, set[CommitId]] = {}
    for id_ in ids:
        reach[id_] = {id_}.union(*(reach[p] for p in objects.commit(id_).parents))
        listed = [found for found, _ in walk.ancestors(objects, [id_])]
        assert sorted(listed) == sorted(reach[id_])
        for other in ids:
            assert walk.is_ancestor(objects, other, id_) == (other in reach[id_])


class ByNumber:
    """A repository with a branch for each commit."""

    def __init__(self, ids: list[CommitId]) -> None:
        self.ids = ids

    def head_commit(self) -> CommitId | None:
        return self.ids[-1]

    def ref(self, name: str) -> CommitId | None:
        number = name.removeprefix("refs/heads/v")
        return self.ids[int(number)] if number.isdigit() else None

    def commits_with_prefix(self, digits: str) -> list[CommitId]:
        return [i for i in self.ids if i.hex().startswith(digits)]


@given(histories(), st.data())
def test_revisions_against_a_walk(value: tuple[Memory, list[CommitId]], data: st.DataObject) -> None:
    memory, ids = value
    number = data.draw(st.integers(0, len(ids) - 1))
    line = [id_ for id_, _ in walk.first_parents(Objects(memory), ids[number])]
    steps = data.draw(st.lists(st.integers(0, 3), max_size=4))
    suffix = "".join("^" * step if step % 2 else f"~{step}" for step in steps)
    for name in (f"v{number}", ids[number].hex(), f"refs/heads/v{number}"):
        if sum(steps) < len(line):
            assert resolve(name + suffix, ByNumber(ids), Objects(memory)) == line[sum(steps)]
