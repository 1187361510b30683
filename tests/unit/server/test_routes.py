"""Paths of requests."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from shardfs.errors import MalformedError
from shardfs.formats.ref import MAX_REF_NAME_SIZE
from shardfs.server.routes import parse_path


def test_the_longest_names_fit() -> None:
    repository = "/".join(["a" * 100] * 8)
    ref = "refs/heads/" + "ü" * ((MAX_REF_NAME_SIZE - len("refs/heads/")) // 2)
    target = parse_path(f"/{repository}/{quote(ref)}")
    assert target is not None
    assert (target.repository, target.ref) == (repository, ref)


def test_longer_paths_are_not_looked_at() -> None:
    assert parse_path("/a/" + "refs/" * 1600) is None


@pytest.mark.parametrize(
    ("name", "rule"), [("team/packs", "'packs' is taken"), ("team/-x", "not '.' or '-' first"), ("a b", "use letters")]
)
def test_a_name_that_is_none_is_refused_with_the_rule(name: str, rule: str) -> None:
    with pytest.raises(MalformedError, match=re.escape(rule)):
        parse_path(f"/{name}/info/refs")
