"""kill -9 of the server at any moment of a push: the client says so, and the repository is the old or the new one."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from shardfs.errors import ShardfsError
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import packs_from_bytes, refs_from_bytes
from shardfs.remotes.http import HttpRemote
from shardfs.store import packs
from shardfs.store.closure import check_closure
from shardfs.store.receive import settle
from shardfs.store.store import Store
from tests.serving import serving
from tests.stores import MAIN, add_commit, make_store

ROUNDS = 8


def push(url: str, source: Store, old: CommitId | None, new: CommitId) -> None:
    remote = HttpRemote(url)
    try:
        for pack_id in source.index.packs():
            remote.put_pack(source.layout.pack(pack_id), pack_id)
        remote.update_ref(MAIN, old, new)
    finally:
        remote.close()


def check(root: Path, allowed: set[CommitId | None]) -> CommitId | None:
    """Where main is; everything below it must be there and every listed pack sound."""
    if not (root / "config.toml").exists():
        assert None in allowed
        return None
    store = Store(root)
    tip = store.refs.get(MAIN)
    assert tip in allowed
    settle(store)  # as the next server does when it opens the repository
    assert refs_from_bytes(store.layout.info_refs.read_bytes())[1].get(MAIN) == tip
    listed = {p.id: p.size for p in packs_from_bytes(store.layout.info_packs.read_bytes())}
    assert listed == packs.list_packs(store.layout) == store.index.packs()
    for pack_id in packs.list_packs(store.layout):
        assert packs.hash_file(store.layout.pack(pack_id)) == pack_id
    if tip is not None:
        store.refs.move(MAIN, tip, None)
        check_closure(store, tip)
        store.refs.move(MAIN, None, tip)
    store.close()
    return tip


@pytest.mark.network
def test_killed_at_any_moment_of_a_push(tmp_path: Path) -> None:
    source, commits = make_store(tmp_path / "source", 2)
    moments = random.Random(7)
    tip: CommitId | None = None
    for _ in range(ROUNDS):
        new = commits[-1]
        with serving(tmp_path / "root") as server:
            killer = threading.Timer(moments.uniform(0.0, 0.08), server.kill)
            killer.start()
            try:
                push(f"{server.url}/demo", source, tip, new)
            except ShardfsError as error:
                assert error.retryable  # noqa: PT017 - a push that was quick enough is fine, too
            finally:
                killer.join()
        tip = check(tmp_path / "root/demo", {tip, new})
        commits.append(add_commit(source, commits[-1], len(commits) + 1))
    with serving(tmp_path / "root") as server:
        push(f"{server.url}/demo", source, tip, commits[-1])
    assert check(tmp_path / "root/demo", {commits[-1]}) == commits[-1]
    source.close()
