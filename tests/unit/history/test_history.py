"""Objects, paths, walks, versions, branches: history without a store."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from shardfs.errors import (
    AlreadyExistsError,
    NotFastForwardError,
    ObjectCorruptedError,
    ObjectNotFoundError,
    PathNotFoundError,
    RefChangedError,
    RefNotFoundError,
    UnsupportedVersionError,
    UsageError,
)
from shardfs.formats import canonical
from shardfs.formats.ids import CommitId, Kind, TreeId
from shardfs.formats.ref import BRANCHES, TAGS, Head
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry
from shardfs.history import branches, objects, paths, versions, walk
from shardfs.history.objects import Objects
from shardfs.history.versions import VersionList
from tests.memory_objects import Folder, Memory


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def found(memory: Memory) -> Objects:
    return Objects(memory)


def _line(memory: Memory, count: int, start: CommitId | None = None) -> list[CommitId]:
    ids: list[CommitId] = []
    for number in range(count):
        parent = ids[-1] if ids else start
        ids.append(memory.put_commit([parent] if parent else [], f"number {number}", number))
    return ids


# Objects


def test_an_object_is_read_once(memory: Memory, found: Objects) -> None:
    id_ = memory.put_commit()
    assert found.commit(id_) is found.commit(id_)
    assert memory.reads == [id_]


def test_the_budget_forgets_the_oldest(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    size = len(memory.object(Kind.COMMIT, memory.put_commit(message="000")))
    monkeypatch.setattr(objects, "_COMMIT_BUDGET", 3 * size)
    found = Objects(memory)
    ids = [memory.put_commit(message=f"{i:03}") for i in range(4)]
    for id_ in ids:
        found.commit(id_)
    memory.reads.clear()
    for id_ in ids[1:]:
        found.commit(id_)
    assert memory.reads == []
    found.commit(ids[0])
    assert memory.reads == [ids[0]]


def test_a_directory_larger_than_the_budget_is_parsed_once(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "_TREE_BUDGET", 100)
    found = Objects(memory)
    id_ = memory.put_tree({b"%d" % i: b"" for i in range(100)})
    for _ in range(3):
        paths.lookup(found, id_, (b"5",))
    assert memory.reads == [id_]


def test_objects_that_break_their_format(memory: Memory, found: Objects) -> None:
    broken = CommitId(memory.put(Kind.COMMIT, b"{}"))
    with pytest.raises(ObjectCorruptedError, match="breaks its format"):
        found.commit(broken)
    newer = TreeId(memory.put(Kind.TREE, canonical.dumps({"type": "tree", "version": 2})))
    with pytest.raises(UnsupportedVersionError):
        found.tree(newer)
    with pytest.raises(ObjectNotFoundError):
        found.tree(TreeId(bytes(32)))


# Paths


@pytest.mark.parametrize(
    ("text", "names"),
    [("", ()), (".", ()), ("/", ()), ("a/b", (b"a", b"b")), ("/a//b/./", (b"a", b"b")), (b"\xff/x", (b"\xff", b"x"))],
)
def test_paths_of_people(text: str | bytes, names: tuple[bytes, ...]) -> None:
    assert paths.parse(text) == names
    assert paths.parse(paths.show(names)) == names


@pytest.mark.parametrize("text", ["..", "a/..", "../a", "a/../b", "a\0b", "\ud800"])
def test_paths_that_leave_the_repository(text: str) -> None:
    with pytest.raises(UsageError, match="not a path"):
        paths.parse(text)


FILES: Folder = {b"a": b"1", b"d": {b"x": b"2", b"e": {}, b"l": "../a"}, b"z": b""}


def test_lookup_and_walk(memory: Memory, found: Objects) -> None:
    root = memory.put_tree(FILES)
    assert isinstance(paths.lookup(found, root, ()), DirEntry)
    assert isinstance(paths.lookup(found, root, (b"d", b"x")), FileEntry)
    assert isinstance(paths.lookup(found, root, (b"d", b"l")), LinkEntry)
    for path in ((b"n",), (b"a", b"b"), (b"d", b"x", b"y"), (b"d", b"l", b"a")):
        with pytest.raises(PathNotFoundError, match="does not exist"):
            paths.lookup(found, root, path)
    walked = [path for path, _ in paths.walk(found, root)]
    assert walked == [(b"a",), (b"d",), (b"d", b"e"), (b"d", b"l"), (b"d", b"x"), (b"z",)]
    assert [path for path, _ in paths.files(found, root, (b"p",))] == [(b"p", b"a"), (b"p", b"d", b"x"), (b"p", b"z")]


# Walks


def test_ancestors_come_once_and_newest_first(memory: Memory, found: Objects) -> None:
    base, left = _line(memory, 2)
    right = memory.put_commit([base], "right", 5)
    merge = memory.put_commit([left, right], "merge", 9)
    assert [id_ for id_, _ in walk.ancestors(found, [merge, left, merge])] == [merge, right, left, base]
    assert [id_ for id_, _ in walk.first_parents(found, merge)] == [merge, left, base]
    assert walk.is_ancestor(found, right, merge)
    assert walk.is_ancestor(found, merge, merge)
    assert not walk.is_ancestor(found, merge, right)
    assert list(walk.ancestors(found, [])) == list(walk.first_parents(found, None)) == []


def test_long_histories_need_no_stack(memory: Memory, found: Objects) -> None:
    tip = _line(memory, 3000)[-1]
    assert sum(1 for _ in walk.ancestors(found, [tip])) == 3000
    assert len(VersionList(found).at(tip)) == 3000


def test_commits_that_touch_a_path(memory: Memory, found: Objects) -> None:
    one = memory.put_commit(tree=memory.put_tree({b"a": b"1", b"d": {b"x": b"1"}}))
    two = memory.put_commit([one], tree=memory.put_tree({b"a": b"1", b"d": {b"x": b"2"}}))
    three = memory.put_commit([two], tree=memory.put_tree({b"a": b"1"}))
    touched = {
        path: [id_ for id_ in (one, two, three) if walk.touches(found, found.commit(id_), paths.parse(path))]
        for path in ("a", "d", "d/x", "n")
    }
    assert touched == {"a": [one], "d": [one, two, three], "d/x": [one, two, three], "n": []}


# Versions


@pytest.mark.parametrize(
    ("subject", "slug"),
    [
        ("Initial commit", "initial-commit"),
        ("epoch 10: loss=0.25", "epoch-10-loss-0.25"),
        ("../../etc/passwd", "etc-passwd"),
        ("..", ""),
        ("模型", ""),
        ("-rf", "rf"),
        ("x" * 50, "x" * 40),
        ("y" * 39 + " z", "y" * 39),
        ("a\0b\nc", "a-b-c"),
    ],
)
def test_slugs_are_safe_names(subject: str, slug: str) -> None:
    assert versions.slug(subject) == slug


def test_versions_follow_the_branch(memory: Memory, found: Objects) -> None:
    ids = _line(memory, 3)
    known = VersionList(found)
    assert [v.name for v in known.at(ids[2])] == ["0001-number-0", "0002-number-1", "0003-number-2"]
    before = known.at(ids[2])
    [more] = _line(memory, 1, ids[2])
    memory.reads.clear()
    assert [v.commit for v in known.at(more)] == [*ids, more]
    assert memory.reads == [more]
    assert [v.commit for v in before] == ids  # the list that somebody holds stays as it was
    assert [v.commit for v in known.at(ids[1])] == ids[:2]
    assert known.at(None) == []
    other = memory.put_commit([ids[0]], "自")
    assert [v.name for v in known.at(other)] == ["0001-number-0", "0002"]


# Branches


class FakeRefs:
    """Refs in a dictionary."""

    def __init__(self, **refs: CommitId) -> None:
        self.refs = {name.replace("_", "/"): commit for name, commit in refs.items()}

    def get(self, name: str) -> CommitId | None:
        return self.refs.get(name)

    def list(self, prefix: str = "refs/") -> dict[str, CommitId]:
        return {name: commit for name, commit in sorted(self.refs.items()) if name.startswith(prefix)}

    def head(self) -> Head:
        return Head("refs/heads/main")

    def move(self, name: str, old: CommitId | None, new: CommitId | None, **_: Any) -> None:
        if self.refs.get(name) != old:
            raise RefChangedError(name, self.refs.get(name))
        if new is None:
            del self.refs[name]
        else:
            self.refs[name] = new


def test_branches_come_and_go(memory: Memory, found: Objects) -> None:
    first, second = _line(memory, 2)
    refs = FakeRefs(refs_heads_main=first)
    branches.create(refs, BRANCHES, "exp", second, "Ann")
    assert branches.listing(refs, BRANCHES) == {"exp": second, "main": first}
    with pytest.raises(AlreadyExistsError):
        branches.create(refs, BRANCHES, "exp", first, "Ann")
    with pytest.raises(UsageError):
        branches.create(refs, TAGS, "a..b", first, "Ann")
    with pytest.raises(UsageError, match="current"):
        branches.delete_branch(refs, found, "main", force=True, author="Ann")
    with pytest.raises(NotFastForwardError, match="no other branch"):
        branches.delete_branch(refs, found, "exp", force=False, author="Ann")
    for name in ("none", "a..b"):
        with pytest.raises(RefNotFoundError):
            branches.delete_branch(refs, found, name, force=False, author="Ann")
    branches.create(refs, TAGS, "v1", second, "Ann")
    assert branches.delete_branch(refs, found, "exp", force=False, author="Ann") == second
    branches.create(refs, TAGS, "v1", first, "Ann", force=True)
    branches.create(refs, TAGS, "v2", first, "Ann")
    assert branches.delete(refs, TAGS, "v2", "Ann") == first
    branches.delete_all(refs, TAGS)
    assert refs.refs == {"refs/heads/main": first}


def test_threads_share_objects_and_versions(memory: Memory, found: Objects) -> None:
    ids = _line(memory, 50)
    known = VersionList(found)
    wrong: list[int] = []

    def read(seed: int) -> None:
        for step in range(100):
            count = (seed * 31 + step * 17) % 50 + 1
            if [v.commit for v in known.at(ids[count - 1])] != ids[:count]:
                wrong.append(count)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
