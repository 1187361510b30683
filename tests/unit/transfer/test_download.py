from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

import pytest

from shardfs.errors import PackCorruptedError, RemoteUnavailableError, RemoteUnreachableError, StoreError
from shardfs.formats.ids import PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes import deadline
from shardfs.remotes.directory import DirectoryRemote
from shardfs.store import atomic
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.transfer.download import PackSource, download
from tests.stores import CHUNK_SIZE, commit, flip, noise
from tests.unit.transfer.conftest import Side, Watched


@pytest.fixture
def packs(server: Store) -> list[PackSize]:
    """Packs of a few ranges each, at the server."""
    for seed in range(4):
        commit(server, {"a": noise(seed, (seed + 1) * 20 * CHUNK_SIZE)})
    return [PackSize(id_, size) for id_, size in server.index.packs(LOCAL).items()]


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfs.transfer.download._RANGE", 50_000)
    monkeypatch.setattr("shardfs.transfer.download._AHEAD", 400_000)


def _run(local: Side, packs: list[PackSize], *sources: PackSource) -> dict[PackId, bool]:
    return {pack.id: error is None for pack, error in download(local.store, packs, lambda _: sources, lambda _: None)}


def test_several_packs_come_in_ranges(local: Side, remote: Watched, server: Store, packs: list[PackSize]) -> None:
    assert all(_run(local, packs, remote).values())
    assert local.store.index.packs(LOCAL) == server.index.packs(LOCAL)
    assert remote.read_bytes == sum(pack.size for pack in packs)
    assert len(remote.calls) > len(packs)
    assert not list(local.store.layout.tmp.iterdir())
    assert local.store.layout.info_packs.read_bytes() == server.layout.info_packs.read_bytes()


def test_who_breaks_down_in_the_middle_is_replaced(
    local: Side, remote: Watched, server: Store, packs: list[PackSize]
) -> None:
    def fail(_: str) -> None:
        if len(remote.calls) >= 3:
            msg = "broken line"
            raise RemoteUnavailableError(msg)

    remote.before = fail
    assert all(_run(local, packs, remote, DirectoryRemote(server.layout.root)).values())
    remote.before = lambda _: None


def test_wrong_bytes_are_never_visible_and_another_is_asked(
    local: Side, remote: Watched, server: Store, packs: list[PackSize], tmp_path: Path
) -> None:
    shutil.copytree(server.layout.root, tmp_path / "good")
    flip(server.layout.pack(packs[1].id), 70_000)
    found = dict(download(local.store, packs, lambda _: [remote], lambda _: None))
    assert [pack for pack, error in found.items() if error is not None] == [packs[1]]
    with pytest.raises(PackCorruptedError, match=packs[1].id.hex()[:12]):
        raise found[packs[1]] or AssertionError
    assert local.store.index.packs(LOCAL).keys() == {pack.id for pack in packs} - {packs[1].id}
    assert not local.store.layout.pack(packs[1].id).exists()
    assert all(_run(local, packs, remote, DirectoryRemote(tmp_path / "good")).values())
    assert local.store.layout.pack(packs[1].id).read_bytes() != server.layout.pack(packs[1].id).read_bytes()


def test_what_nobody_has_any_more_keeps_nothing_else_back(
    local: Side, remote: Watched, server: Store, packs: list[PackSize]
) -> None:
    server.drop_packs([packs[0].id])
    found = _run(local, packs, remote)
    assert found == {pack.id: pack != packs[0] for pack in packs}


def test_what_came_whole_before_a_failure_stays(
    local: Side, remote: Watched, packs: list[PackSize], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.transfer.download._AHEAD", 1)
    first = len(range(0, packs[0].size, 50_000))

    def fail(_: str) -> None:
        if len(remote.calls) > first:
            msg = "no route"
            raise RemoteUnreachableError(msg)

    remote.before = fail
    with pytest.raises(RemoteUnreachableError):
        _run(local, packs, remote)
    assert local.store.index.packs(LOCAL).keys() == {packs[0].id}


def test_packs_that_nobody_answers_for_cost_one_deadline_together(
    local: Side, remote: Watched, packs: list[PackSize], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.transfer.download._PARALLEL", 1)
    patience: list[float] = []

    def fail(_: str) -> None:
        patience.append(deadline.remaining())
        msg = "the disk does not read"
        raise RemoteUnavailableError(msg)

    remote.before = fail
    assert not any(_run(local, packs, remote).values())
    assert patience[0] == math.inf
    assert len(patience) == len(packs)
    assert max(patience[1:]) <= 5
    assert not local.store.index.packs(LOCAL)


def test_one_that_is_out_of_reach_hides_no_damage_of_another(
    local: Side, remote: Watched, server: Store, packs: list[PackSize]
) -> None:
    class Away:
        name = "away"

        def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
            raise RemoteUnreachableError("no route")

    os.truncate(server.layout.pack(packs[1].id), 100)
    found = dict(download(local.store, packs, lambda _: [remote, Away()], lambda _: None))
    assert isinstance(found[packs[1]], PackCorruptedError)
    assert [pack for pack, error in found.items() if error is not None] == [packs[1]]


@pytest.mark.parametrize("moment", [2, 10])
def test_a_gc_that_deletes_what_is_unfinished_is_one_clear_error(
    local: Side, remote: Watched, packs: list[PackSize], monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    monkeypatch.setattr("shardfs.transfer.download._AHEAD", 1)

    def clean(_: str) -> None:
        if len(remote.calls) == moment:
            atomic.remove_stale(local.store.layout.tmp, 0)

    remote.before = clean
    with pytest.raises(StoreError, match="is gone"):
        _run(local, packs, remote)
    remote.before = lambda _: None
    assert all(_run(local, packs, remote).values())
