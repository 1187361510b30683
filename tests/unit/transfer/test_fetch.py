from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import PackCorruptedError, RemoteProtocolError, RemoteUnavailableError, RepositoryNotFoundError
from shardfs.formats.ids import CommitId, Kind
from shardfs.history.walk import ancestors
from shardfs.remotes.directory import DirectoryRemote
from shardfs.store.index import LOCAL, Location
from shardfs.store.store import Store
from shardfs.transfer.fetch import FetchReport, fetch, learn_packs, plan_fetch
from shardfs.transfer.filters import Filter
from tests import stores
from tests.stores import CHUNK_SIZE, commit, flip, noise
from tests.unit.transfer.conftest import Side, Watched

TRACKING = "refs/remotes/origin/main"
ALL = Filter(everything=True)
DATA = noise(1, 100 * CHUNK_SIZE)


@pytest.fixture
def tip(server: Store) -> CommitId:
    """Three commits at the server, in three packs."""
    commit(server, {"a": DATA})
    commit(server, {"a": DATA, "b/c": b"small"})
    return commit(server, {"a": noise(2, 9 * CHUNK_SIZE), "b/c": b"small"})


def _objects_here(store: Store) -> set[bytes]:
    return {e.id for _, e in stores.local_entries(store)}


def test_history_comes_and_chunks_stay(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    report = fetch(local.store, remote)
    assert local.store.refs.get(TRACKING) == tip
    assert len(list(ancestors(local.objects, [tip]))) == 3
    assert all(e.kind is not Kind.CHUNK for _, e in stores.local_entries(local.store))
    assert report.head == "refs/heads/main"
    assert (report.packs, report.objects) == (3, len(_objects_here(local.store)))
    assert remote.calls.count("read_pack") == 3
    lazy = Side(local.store, remote)
    entry = next(e for _, e in stores.local_entries(server, [Kind.CHUNK]))
    assert len(lazy.reader.chunk(entry.id, entry.raw_size)) == entry.raw_size  # type: ignore[arg-type]


def test_a_second_fetch_reads_nothing(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    fetch(local.store, remote)
    remote.calls.clear()
    report = fetch(local.store, remote)
    assert sorted(remote.calls) == ["list_packs", "refs"]
    assert (report.packs, report.objects, report.bytes, report.moved) == (0, 0, 0, [])
    new = commit(server, {"a": DATA})
    assert fetch(local.store, remote).packs == 1
    assert local.store.refs.get(TRACKING) == new


def _pack_anew(server: Store) -> set[bytes]:
    """Put all chunks of a store into one new pack, as gc and optimize do; returns the ids of the old packs."""
    old = server.index.packs(LOCAL)
    with server.batch() as batch:
        for pack_id, entry in stores.local_entries(server):
            batch.copy(entry, bytes(server.read(Location(LOCAL, pack_id, 0, entry)).payload))
    server.drop_packs(old)
    return set(old)


def test_packs_are_learned_again_up_to_a_deadline(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    fetch(local.store, remote)
    old = _pack_anew(server)
    learn_packs(local.store, remote, deadline_s=-1)
    assert local.store.index.packs("origin").keys() == old  # whoever finds them gone asks again
    learn_packs(local.store, remote, deadline_s=30)
    assert local.store.index.packs("origin") == server.index.packs(LOCAL)
    assert not old & local.store.index.packs("origin").keys()


def test_chunks_that_were_packed_with_newer_versions_are_found(
    local: Side, remote: Watched, server: Store, tip: CommitId
) -> None:
    fetch(local.store, remote)
    entry = next(e for _, e in stores.local_entries(server, [Kind.CHUNK]))
    new = commit(server, {"new": noise(3, 5 * CHUNK_SIZE)})
    known = local.store.index.packs("origin")
    _pack_anew(server)
    with local.store.lock.hold("write"), ThreadPoolExecutor() as another:
        another.submit(learn_packs, local.store, remote, 30).result()
    assert local.store.index.packs("origin") == known
    learn_packs(local.store, remote, deadline_s=30)
    assert local.store.index.packs("origin") == server.index.packs(LOCAL)
    lazy = Side(local.store, remote)
    assert len(lazy.reader.chunk(entry.id, entry.raw_size)) == entry.raw_size  # type: ignore[arg-type]
    assert local.store.refs.get(TRACKING) == tip
    fetch(local.store, remote)
    assert local.store.refs.get(TRACKING) == new


def test_full_copies_packs(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    progress: list[tuple[int, int | None]] = []
    fetch(local.store, remote, wanted=ALL, progress=lambda done, total, _: progress.append((done, total)))
    assert local.store.index.packs(LOCAL) == server.index.packs(LOCAL)
    assert local.store.index.packs("origin") == server.index.packs(LOCAL)
    assert progress[-1][0] == progress[-1][1] == sum(server.index.packs(LOCAL).values())
    remote.calls.clear()
    fetch(local.store, remote, wanted=ALL)
    assert "read_pack" not in remote.calls


def test_full_after_a_lazy_fetch(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    fetch(local.store, remote)
    fetch(local.store, remote, wanted=ALL)
    assert _objects_here(server) <= _objects_here(local.store)


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("failing", range(5))
def test_an_interrupted_fetch_goes_on(
    local: Side,
    remote: Watched,
    server: Store,
    tip: CommitId,
    failing: int,
    full: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shardfs.transfer.download._AHEAD", 1)  # one request at a time: what came before is here

    def fail(_: str) -> None:
        if len(remote.calls) == failing:
            remote.calls.append("failed")
            msg = "broken line"
            raise RemoteUnavailableError(msg)

    remote.before = fail
    with pytest.raises(RemoteUnavailableError):
        fetch(local.store, remote, wanted=Filter(everything=full))
    assert local.store.refs.get(TRACKING) is None
    fetch(local.store, remote, wanted=Filter(everything=full))
    assert local.store.refs.get(TRACKING) == tip
    if full:
        assert remote.read_bytes <= sum(server.index.packs().values())
    assert not list(local.store.layout.tmp.iterdir())


def test_large_tables_and_objects_before_the_tail(
    local: Side, remote: Watched, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.transfer.learning.TAIL_GUESS", 100)
    tip = commit(server, {f"folder{i}/file": b"%d" % i for i in range(300)})
    fetch(local.store, remote)
    assert local.store.refs.get(TRACKING) == tip
    assert len(list(local.objects.tree(local.objects.commit(tip).tree).entries)) == 300
    assert remote.calls.count("read_pack") == 3


def test_dropped_packs_are_forgotten(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    fetch(local.store, remote)
    server.refs.move("refs/heads/main", tip, None)
    server.drop_packs(list(server.index.packs())[:1])
    report = fetch(local.store, remote)
    assert report.forgotten == 1
    assert local.store.index.packs("origin") == server.index.packs()
    assert local.store.refs.get(TRACKING) == tip
    report = fetch(local.store, remote, prune=True)
    assert [(m.name, m.old, m.new) for m in report.moved] == [(TRACKING, tip, None)]


def test_tags_are_made_and_never_moved(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    server.refs.move("refs/tags/v1", None, tip)
    fetch(local.store, remote)
    assert local.store.refs.get("refs/tags/v1") == tip
    new = commit(server, {"x": b"y"})
    server.refs.move("refs/tags/v1", tip, new)
    report = fetch(local.store, remote)
    assert local.store.refs.get("refs/tags/v1") == tip
    assert any("v1" in line for line in report.conflicts)


def test_names_that_collide_need_prune(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    fetch(local.store, remote)
    server.refs.move("refs/heads/main", tip, None)
    server.refs.move("refs/heads/main/sub", None, tip)
    report = fetch(local.store, remote)
    assert any("prune" in line for line in report.conflicts)
    fetch(local.store, remote, prune=True)
    assert local.store.refs.get(TRACKING + "/sub") == tip


def test_a_damaged_object_keeps_its_refs_back_and_no_others(
    local: Side, remote: Watched, server: Store, tip: CommitId
) -> None:
    other = commit(server, {"sound": b"1"}, branch="other")
    bad = next((p, e) for p, e in stores.local_entries(server, [Kind.COMMIT]) if e.id == tip)
    flip(server.layout.pack(bad[0]), bad[1].offset + 3)
    report = fetch(local.store, remote)
    assert local.store.refs.get(TRACKING) is None
    assert local.store.refs.get("refs/remotes/origin/other") == other
    assert any("not complete" in line for line in report.conflicts)
    assert report.complete == {"refs/heads/other": other}
    report.check_followed("origin", "refs/heads/other")
    with pytest.raises(RemoteProtocolError, match="not complete"):
        report.check_followed("origin", "refs/heads/main")


def test_contents_are_picked_though_another_branch_is_damaged(server: Store, tip: CommitId, tmp_path: Path) -> None:
    root = server.layout.root
    with shardfs.clone(str(root), tmp_path / "clone", filters=["size<1M"]) as repo:
        new = commit(server, {"a": noise(3, 9 * CHUNK_SIZE)})
        bad = commit(server, {"d/e": noise(4, 9 * CHUNK_SIZE)}, branch="broken")
        pack, entry = [(p, e) for p, e in stores.local_entries(server, [Kind.TREE])][-1]
        flip(server.layout.pack(pack), entry.offset + 3)
        assert repo.pull().new == new
        assert repo.fetch("origin").conflicts
        assert repo.ref("refs/remotes/origin/broken") not in (new, bad)


def test_an_object_that_came_damaged_is_asked_for_again(
    local: Side, remote: Watched, server: Store, tip: CommitId
) -> None:
    bad = next((p, e) for p, e in stores.local_entries(server, [Kind.COMMIT]) if e.id == tip)
    place = server.layout.pack(bad[0]), bad[1].offset + 3
    flip(*place)
    assert fetch(local.store, remote).conflicts
    flip(*place)
    report = fetch(local.store, remote)
    assert (report.conflicts, report.packs) == ([], 0)
    assert local.store.refs.get(TRACKING) == tip


@pytest.mark.parametrize("wanted", [Filter(), ALL])
def test_a_damaged_table_keeps_its_refs_back_and_no_others(
    local: Side, remote: Watched, server: Store, tip: CommitId, wanted: Filter
) -> None:
    pack, size = next(iter(server.index.packs().items()))
    flip(server.layout.pack(pack), size - 70)
    other = commit(server, {"sound": b"1"}, branch="other")
    report = fetch(local.store, remote, wanted=wanted)
    assert [type(error) for error in report.lost] == [PackCorruptedError]
    assert isinstance(report.failure, PackCorruptedError)
    assert report.complete == {"refs/heads/other": other}
    assert local.store.refs.get(TRACKING) is None
    flip(server.layout.pack(pack), size - 70)
    report = fetch(local.store, remote, wanted=wanted)
    assert (report.lost, report.failure, local.store.refs.get(TRACKING)) == ([], None, tip)


def test_what_a_remote_lists_and_has_not_is_told(local: Side, remote: Watched, server: Store, tip: CommitId) -> None:
    listed = remote.list_packs()
    pack = next(iter(server.index.packs()))
    server.layout.pack(pack).unlink()
    remote.list_packs = lambda: listed  # type: ignore[method-assign]
    report = fetch(local.store, remote, wanted=ALL)
    assert [type(error) for error in report.lost] == [PackCorruptedError]
    assert pack.hex()[:12] in str(report.failure)
    assert local.store.refs.get(TRACKING) is None


def test_no_repository(local: Side, remote: Watched, server: Store) -> None:
    (server.layout.info_refs).unlink()
    server.layout.config.unlink()
    with pytest.raises(RepositoryNotFoundError):
        fetch(local.store, remote)
    assert isinstance(FetchReport(), FetchReport)


def test_packs_that_are_packed_anew_meanwhile_are_looked_for_again(
    local: Side, remote: Watched, server: Store, tip: CommitId
) -> None:
    def pack_anew(what: str) -> None:
        if what == "read_pack":
            remote.before = lambda _: None
            _pack_anew(server)

    for wanted in (Filter(), ALL):
        remote.before = pack_anew
        fetch(local.store, remote, wanted=wanted)
        assert local.store.refs.get(TRACKING) == tip
        assert local.store.index.packs("origin") == server.index.packs(LOCAL)
    assert local.store.index.packs(LOCAL).keys() >= server.index.packs(LOCAL).keys()


def test_a_damaged_object_comes_from_another_remote(
    local: Side, remote: Watched, server: Store, tip: CommitId, tmp_path: Path
) -> None:
    shutil.copytree(server.layout.root, tmp_path / "backup")
    backup = DirectoryRemote(tmp_path / "backup", name="backup")
    bad = next((p, e) for p, e in stores.local_entries(server, [Kind.COMMIT]) if e.id == tip)
    flip(server.layout.pack(bad[0]), bad[1].offset + 3)
    local.store.index.add_packs(
        ((pack, size, server.index.entries(pack)) for pack, size in server.index.packs().items()), place="backup"
    )
    report = fetch(local.store, remote, others=lambda _: backup)
    assert report.conflicts == []
    assert local.store.refs.get(TRACKING) == tip
    shutil.rmtree(tmp_path / "backup")
    assert len(list(ancestors(Side(local.store).objects, [tip]))) == 3


def test_a_branch_filter_follows_its_branches_and_the_tags_in_their_history(
    local: Side, remote: Watched, server: Store, tip: CommitId
) -> None:
    server.refs.move("refs/tags/v1", None, tip)
    other = commit(server, {"x": b"1"}, branch="exp/one", parents=())
    server.refs.move("refs/tags/other", None, other)
    wanted = Filter(branches=("ma*",))
    planned = plan_fetch(local.store, remote, wanted=wanted)
    assert TRACKING in {move.name for move in planned.moves}
    fetch(local.store, remote, wanted=wanted)
    assert local.store.refs.list() == {TRACKING: tip, "refs/tags/v1": tip}
    fetch(local.store, remote, wanted=Filter(branches=("exp/*",)), prune=True)
    assert set(local.store.refs.list()) == {"refs/remotes/origin/exp/one", "refs/tags/v1", "refs/tags/other"}


@pytest.mark.parametrize("wanted", [Filter(), ALL])
def test_the_bytes_of_a_plan_are_those_that_come(
    local: Side, remote: Watched, server: Store, tip: CommitId, wanted: Filter
) -> None:
    planned = plan_fetch(local.store, remote, wanted=wanted)
    assert [(move.name, move.new) for move in planned.moves] == [(TRACKING, tip)]
    assert local.store.refs.list() == {}
    report = fetch(local.store, remote, wanted=wanted)
    assert (planned.packs, planned.bytes) == (report.packs, report.bytes) == (3, remote.read_bytes)
    assert plan_fetch(local.store, remote, wanted=wanted) == ([], 0, 0, 0, 0, False)


@pytest.mark.parametrize(
    "wanted", [Filter(paths=("x",)), Filter(below=1000), Filter(everything=True, branches=("ma*",))]
)
def test_a_plan_says_that_a_filter_picks_contents_besides(
    local: Side, remote: Watched, tip: CommitId, wanted: Filter
) -> None:
    planned = plan_fetch(local.store, remote, wanted=wanted)
    assert planned.picks
    assert planned.bytes < plan_fetch(local.store, remote, wanted=ALL).bytes
