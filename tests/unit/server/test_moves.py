"""Which moves of refs take something away."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from shardfs.errors import ConflictError
from shardfs.formats.ids import CommitId
from shardfs.server.moves import loses
from shardfs.store.store import Store
from tests.serving import serving
from tests.stores import MAIN, add_commit, commit, make_store
from tests.unit.server.byhand import ask


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


def test_nothing_is_said_of_a_commit_that_is_not_here(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    with pytest.raises(ConflictError, match="commit 000000000000 is not complete here"):
        loses(store, MAIN, commits[2], CommitId(bytes(32)))
    assert loses(store, MAIN, CommitId(bytes(32)), commits[2])


def test_history_that_cannot_be_read_may_have_been_lost(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    torn = commit(store, {"a": b"1"}, branch=None, parents=[CommitId(bytes(32))])
    assert loses(store, MAIN, commits[0], torn)


@pytest.mark.network
def test_a_commit_that_comes_in_the_meantime_takes_nothing_away(
    history: tuple[Store, list[CommitId]], tmp_path: Path
) -> None:
    store, commits = history
    shutil.copytree(store.layout.root, tmp_path / "copy")
    with closing(Store(tmp_path / "copy")) as copy:
        aside = add_commit(copy, commits[1], 9, move=None)
        [late] = copy.index.packs().keys() - store.index.packs().keys()
        pack = copy.layout.pack(late).read_bytes()
    with serving(tmp_path, "anonymous=WRITE") as server, ThreadPoolExecutor(1) as pool:
        with store.lock.hold("test"):
            said = {"If-Match": f'"{commits[2].hex()}"'}
            move = pool.submit(ask, server.url, "PUT", f"/demo/{MAIN}", aside.hex().encode(), **said)
            time.sleep(0.5)  # so that the server waits for the lock, if it waits
            store.layout.pack(late).parent.mkdir(exist_ok=True)
            store.layout.pack(late).write_bytes(pack)
        assert move.result().status == 409
    assert store.refs.get(MAIN) == commits[2]


def test_clocks_that_run_backwards_are_no_loss(history: tuple[Store, list[CommitId]]) -> None:
    store, commits = history
    late = commit(store, {"a": b"1"}, branch=None, parents=[commits[2]], time_us=9_000_000_000_000_000)
    early = commit(store, {"a": b"2"}, branch=None, parents=[late], time_us=1)
    assert not loses(store, MAIN, late, early)
    assert loses(store, MAIN, early, late)
