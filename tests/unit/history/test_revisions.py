"""What people write to name a commit."""

from __future__ import annotations

import pytest

from shardfs.errors import RevisionNotFoundError
from shardfs.formats.ids import CommitId
from shardfs.history.objects import Objects
from shardfs.history.revisions import resolve, short
from tests.memory_objects import Memory


class Names:
    """Names of a small repository."""

    def __init__(self, ids: list[CommitId]) -> None:
        self.ids = ids
        self.head: CommitId | None = ids[-1]
        self.refs = {
            "refs/heads/main": ids[-1],
            "refs/heads/exp/a": ids[1],
            "refs/tags/v1": ids[0],
            "refs/heads/both": ids[0],
            "refs/tags/both": ids[2],
            "refs/remotes/origin/main": ids[3],
        }

    def head_commit(self) -> CommitId | None:
        return self.head

    def ref(self, name: str) -> CommitId | None:
        return self.refs.get(name)

    def commits_with_prefix(self, digits: str) -> list[CommitId]:
        assert len(digits) >= 4
        return [i for i in self.ids if i.hex().startswith(digits)]


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def ids(memory: Memory) -> list[CommitId]:
    found: list[CommitId] = []
    for number in range(5):
        found.append(memory.put_commit(found[-1:], f"{number}"))
    side = memory.put_commit([], "side")
    found.append(memory.put_commit([found[-1], side], "merge"))
    return found


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("HEAD", 5),
        ("@", 5),
        ("main", 5),
        ("exp/a", 1),
        ("v1", 0),
        ("both", 2),
        ("origin/main", 3),
        ("refs/heads/both", 0),
        ("refs/remotes/origin/main", 3),
        ("HEAD~", 4),
        ("HEAD~1", 4),
        ("HEAD^", 4),
        ("HEAD~0", 5),
        ("HEAD~3", 2),
        ("HEAD~2^~1", 1),
        ("main^^^^^", 0),
        ("origin/main~3", 0),
    ],
)
def test_names(memory: Memory, ids: list[CommitId], text: str, number: int) -> None:
    assert resolve(text, Names(ids), Objects(memory)) == ids[number]


def test_ids(memory: Memory, ids: list[CommitId]) -> None:
    for id_ in ids:
        for text in (id_.hex(), short(id_), f"{short(id_)}~0"):
            assert resolve(text, Names(ids), Objects(memory)) == id_


@pytest.mark.parametrize(
    "text",
    [
        "",
        "~1",
        "^",
        "none",
        "HEAD~6",
        "v1^",
        "origin",
        "refs/heads",
        "../../etc",
        "HEAD~x",
        "HEAD^2x",
        "a b",
        "\ud800",
        "HEAD~1.5",
        "HEAD~-1",
        "ffff",
        "abc",
        "0" * 64,
        "HEAD:file",
        "HEAD~9999999999",
    ],
)
def test_what_names_nothing(memory: Memory, ids: list[CommitId], text: str) -> None:
    with pytest.raises(RevisionNotFoundError):
        resolve(text, Names(ids), Objects(memory))


def test_too_few_digits(memory: Memory, ids: list[CommitId]) -> None:
    names = Names([CommitId(b"\xab\xcd" + bytes([i]) * 30) for i in range(6)])
    names.refs = {}
    with pytest.raises(RevisionNotFoundError, match=r"ambiguous: abcd0000.*more digits"):
        resolve("abcd", names, Objects(memory))


def test_a_branch_without_commits(memory: Memory, ids: list[CommitId]) -> None:
    names = Names(ids)
    names.head = None
    with pytest.raises(RevisionNotFoundError, match="no commits yet"):
        resolve("HEAD", names, Objects(memory))
