"""The parts of an open repository, and what becomes of them in processes that fork, as loaders of training data do."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.formats.ref import PackSize
from shardfs.wiring import Wiring
from tests.serving import serving
from tests.stores import make_store

pytestmark = pytest.mark.network


@pytest.fixture
def wiring(tmp_path: Path) -> Iterator[Wiring]:
    """An empty repository whose remote `origin` holds packs."""
    make_store(tmp_path / "served" / "model", 2)[0].close()
    with serving(tmp_path / "served") as server:
        with shardfs.init(tmp_path / "here") as repository:
            repository.add_remote("origin", f"{server.url}/model")
        with Wiring(tmp_path / "here" / ".shardfs") as opened:
            yield opened


def reads_well(wiring: Wiring, pack: PackSize, length: int) -> bool:
    remote = wiring.remote("origin")
    return all(len(remote.read_pack(pack.id, start, length)) == length for start in range(60))


def forked(wiring: Wiring, pack: PackSize, length: int) -> int:
    """The id of a child that reads; its status tells how that went."""
    child = os.fork()
    if child == 0:
        signal.alarm(40)
        try:
            os._exit(0 if reads_well(wiring, pack, length) else 1)
        finally:
            os._exit(2)
    return child


def test_children_use_no_connection_of_their_parent(wiring: Wiring) -> None:
    """On one connection they would get each other's answers."""
    pack = wiring.remote("origin").list_packs()[0]
    children = [forked(wiring, pack, length) for length in range(10, 14)]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    assert reads_well(wiring, pack, 9)


def test_a_child_waits_for_no_thread_of_its_parent(wiring: Wiring) -> None:
    pack = wiring.remote("origin").list_packs()[0]
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with wiring._guard:
            is_held.set()
            may_end.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait()
    child = forked(wiring, pack, 10)
    may_end.set()
    holder.join()
    assert os.waitpid(child, 0)[1] == 0
