"""Which moves of refs take something away."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.formats.ids import CommitId
from shardfs.server.moves import loses
from shardfs.store.store import Store
from tests.stores import MAIN, add_commit, commit, make_store


@pytest.fixture
def history(tmp_path: Path) -> Iterator[tuple[Store, list[CommitId]]]:
    store, commits = make_store(tmp_path / "demo", 3)
    yield store, commits
    store.close()


def test_forward_is_no_loss(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    assert not loses(store, MAIN, commits[0], commits[2])
    assert not loses(store, MAIN, commits[2], commits[2])


def test_back_and_aside_are(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    assert loses(store, MAIN, commits[2], commits[0])
    assert loses(store, MAIN, commits[2], add_commit(store, commits[1], 9))


def test_tags_do_not_move(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    assert loses(store, "refs/tags/v1", commits[0], commits[2])
    assert not loses(store, "refs/tags/v1", commits[0], commits[0])


def test_what_is_not_here_fails_for_itself(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    assert not loses(store, MAIN, commits[2], CommitId(bytes(32)))
    assert loses(store, MAIN, CommitId(bytes(32)), commits[2])


def test_clocks_that_run_backwards_are_no_loss(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    late = commit(store, {"a": b"1"}, branch=None, parents=[commits[2]], time_us=9_000_000_000_000_000)
    early = commit(store, {"a": b"2"}, branch=None, parents=[late], time_us=1)
    assert not loses(store, MAIN, late, early)
    assert loses(store, MAIN, early, late)
