"""Paths of requests."""

from __future__ import annotations

from urllib.parse import quote

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
