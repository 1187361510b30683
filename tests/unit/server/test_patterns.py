"""Patterns of repositories."""

from __future__ import annotations

import pytest

from shardfs.errors import UsageError
from shardfs.server.patterns import check_pattern, matches, narrowness


@pytest.mark.parametrize("text", ["demo", "team/llm", "team/*", "a/b/*", "*"])
def test_patterns(text: str) -> None:
    assert check_pattern(text) == text


@pytest.mark.parametrize(
    "text", ["", "/", "/*", "**", "*/a", "a/*/b", "a*", "../*", ".server", ".server/*", "packs/*", "a/"]
)
def test_no_patterns(text: str) -> None:
    with pytest.raises(UsageError, match="not a repository"):
        check_pattern(text)


def test_what_is_meant() -> None:
    names = ["a", "a/b", "a/b/c", "ab", "ab/c"]
    assert [name for name in names if matches("a", name)] == ["a"]
    assert [name for name in names if matches("a/*", name)] == ["a/b", "a/b/c"]
    assert [name for name in names if matches("*", name)] == names


def test_the_narrowest_is_last() -> None:
    assert sorted(["a/b/c", "*", "a/*", "a/b/*"], key=narrowness) == ["*", "a/*", "a/b/*", "a/b/c"]
