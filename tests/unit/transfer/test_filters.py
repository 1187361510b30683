from __future__ import annotations

import pytest

from shardfs.errors import UsageError
from shardfs.transfer.filters import Filter, parse


def test_no_word_and_none_are_metadata_alone() -> None:
    assert parse([]) == parse(["none"]) == Filter()
    assert not Filter().whole_packs
    assert not Filter().picks


@pytest.mark.parametrize(
    ("words", "path", "size", "expected"),
    [
        (["path=*.json"], "config.json", 1, True),
        (["path=*.json"], "a/b/config.json", 1, True),
        (["path=*.json"], "model.bin", 1, False),
        (["path=weights"], "weights/a/model.bin", 1, True),
        (["path=/weights/"], "weights/model.bin", 1, True),
        (["path=weights"], "weights2/model.bin", 1, False),
        (["size<10M"], "model.bin", 10 << 20, False),
        (["size<10M"], "model.bin", (10 << 20) - 1, True),
        (["size<10M", "size<1K"], "model.bin", 1024, False),
        (["path=a", "path=b", "size<2"], "b/x", 1, True),
        (["path=a", "path=b", "size<2"], "b/x", 2, False),
    ],
)
def test_contents(words: list[str], path: str, size: int, expected: bool) -> None:
    assert parse(words).picks
    assert parse(words).takes(path, size) is expected


def test_branches() -> None:
    found = parse(["branch=main", "branch=exp/*", "all"])
    assert [found.follows(f"refs/heads/{name}") for name in ("main", "exp/1", "mainly")] == [True, True, False]
    assert found.picks  # of all that the remote has, what these branches need
    assert not found.whole_packs
    assert parse(["all"]).whole_packs


@pytest.mark.parametrize(
    "words",
    [
        ["all", "path=a"],
        ["none", "size<1"],
        ["all", "none"],
        ["depth=1"],
        ["path="],
        ["branch="],
        ["size<x"],
        ["size=1"],
    ],
)
def test_words_that_are_none_or_exclude_each_other(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse(words)
