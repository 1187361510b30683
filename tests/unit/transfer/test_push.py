from __future__ import annotations

import threading
import time
from itertools import count
from pathlib import Path

import pytest

from shardfs.errors import (
    ChunkCorruptedError,
    ChunkNotFoundError,
    NotFastForwardError,
    RefChangedError,
    RefNotFoundError,
    RemoteUnavailableError,
    UsageError,
)
from shardfs.formats.ids import CommitId, Kind
from shardfs.history.walk import ancestors
from shardfs.remotes import meter
from shardfs.store.store import Store
from shardfs.transfer.push import PushReport, RefUpdate, plan_updates, push
from tests import stores
from tests.stores import CHUNK_SIZE, commit, flip, noise
from tests.unit.transfer.conftest import Side, Watched

MAIN = "refs/heads/main"
DATA = noise(1, 20 * CHUNK_SIZE)


def _push(local: Side, remote: Watched, *updates: RefUpdate, force: bool = False) -> PushReport:
    return push(local.store, local.reader, local.objects, remote, updates, force=force)


def _push_main(local: Side, remote: Watched, *, force: bool = False) -> PushReport:
    return _push(local, remote, RefUpdate(MAIN, local.store.refs.get(MAIN)), force=force)


def _assert_same_history(local: Side, server: Store, tip: CommitId) -> None:
    there = Side(server)
    assert server.refs.get(MAIN) == tip
    assert [i for i, _ in ancestors(there.objects, [tip])] == [i for i, _ in ancestors(local.objects, [tip])]


def test_first_push_sends_packs_as_they_are(local: Side, remote: Watched, server: Store) -> None:
    tip = commit(local.store, {"a": DATA})
    report = _push_main(local, remote)
    assert remote.sent == list(local.store.index.packs())
    assert [m.new for m in report.moved] == [tip]
    assert report.packs == 1
    _assert_same_history(local, server, tip)
    assert local.store.refs.get("refs/remotes/origin/main") == tip
    assert list(local.store.layout.tmp.iterdir()) == []
    assert local.store.index.packs("origin") == server.index.packs()


def test_second_push_sends_only_what_is_new(local: Side, remote: Watched, server: Store) -> None:
    commit(local.store, {"a": DATA})
    _push_main(local, remote)
    tip = commit(local.store, {"a": DATA, "b": b"new"})
    report = _push_main(local, remote)
    assert report.objects == 3
    _assert_same_history(local, server, tip)
    again = _push_main(local, remote)
    assert (again.moved, again.up_to_date, again.packs) == ([], [MAIN], 0)


def test_packs_with_other_content_are_not_sent_whole(local: Side, remote: Watched, server: Store) -> None:
    with local.store.batch() as batch:
        batch.put(Kind.CHUNK, b"private, on no branch")
        tree = stores.put_tree(batch, {"a": DATA}, {})
    tip = commit(local.store, {"a": DATA})
    report = _push_main(local, remote)
    assert tree
    assert report.packs == len(remote.sent)
    _assert_same_history(local, server, tip)
    entries = [e for _, e in stores.local_entries(server)]
    assert all(e.raw_size != len(b"private, on no branch") for e in entries)


def test_what_the_remote_has_under_other_refs_is_not_sent(local: Side, remote: Watched, server: Store) -> None:
    commit(server, {"theirs": DATA})
    tip = commit(local.store, {"ours": DATA, "more": b"x"})
    report = _push(local, remote, RefUpdate("refs/heads/ours", tip))
    assert report.bytes < len(DATA) // 2
    assert server.refs.get("refs/heads/ours") == tip


def test_lost_commits_are_refused(local: Side, remote: Watched, server: Store) -> None:
    theirs = commit(server, {"theirs": b"1"})
    ours = commit(local.store, {"ours": b"1"})
    with pytest.raises(NotFastForwardError, match="pull"):
        _push_main(local, remote)
    assert server.refs.get(MAIN) == theirs
    assert remote.sent == []
    report = _push_main(local, remote, force=True)
    assert [(m.old, m.new) for m in report.moved] == [(theirs, ours)]
    assert server.refs.get(MAIN) == ours


def test_known_but_not_contained_is_refused(local: Side, remote: Watched, server: Store) -> None:
    first = commit(local.store, {"a": b"1"})
    commit(local.store, {"a": b"2"})
    _push_main(local, remote)
    with pytest.raises(NotFastForwardError, match="does not contain"):
        _push(local, remote, RefUpdate(MAIN, first))


def test_expected_value_is_compared(local: Side, remote: Watched, server: Store) -> None:
    tip = commit(local.store, {"a": b"1"})
    _push_main(local, remote)
    new = commit(local.store, {"a": b"2"})
    with pytest.raises(RefChangedError):
        _push(local, remote, RefUpdate(MAIN, new, expected_old=new))
    _push(local, remote, RefUpdate(MAIN, new, expected_old=tip))
    assert server.refs.get(MAIN) == new


def test_branches_that_moved_before_another_was_lost_are_followed(local: Side, remote: Watched, server: Store) -> None:
    tip = commit(local.store, {"a": b"1"})
    local.store.refs.move("refs/heads/other", None, tip)

    def lose(what: str) -> None:
        if what == "update_ref" and "update_ref" in remote.calls:
            raise RefChangedError("moved", None)

    remote.before = lose
    with pytest.raises(RefChangedError):
        _push(local, remote, RefUpdate(MAIN, tip), RefUpdate("refs/heads/other", tip))
    assert server.refs.get(MAIN) == tip
    assert local.store.refs.get("refs/remotes/origin/main") == tip
    assert local.store.refs.get("refs/remotes/origin/other") is None


def test_tags_and_deletion(local: Side, remote: Watched, server: Store) -> None:
    first = commit(local.store, {"a": b"1"})
    local.store.refs.move("refs/tags/v1", None, first)
    _push(local, remote, *plan_updates(local.store.refs, "origin", ["main"], tags=True))
    assert server.refs.get("refs/tags/v1") == first
    second = commit(local.store, {"a": b"2"})
    with pytest.raises(NotFastForwardError, match="force"):
        _push(local, remote, RefUpdate("refs/tags/v1", second))
    _push(local, remote, *plan_updates(local.store.refs, "origin", [":v1"]))
    assert server.refs.get("refs/tags/v1") is None
    with pytest.raises(RefNotFoundError):
        plan_updates(local.store.refs, "origin", ["nothing"])
    with pytest.raises(UsageError):
        plan_updates(local.store.refs, "origin", ["a..b"])
    with pytest.raises(UsageError):
        _push(local, remote, RefUpdate("refs/remotes/x/y", second))


def test_a_missing_chunk_stops_before_anything_moves(local: Side, remote: Watched, server: Store) -> None:
    commit(local.store, {"a": DATA})
    stores.sql(local.store, "DELETE FROM entries WHERE kind = 1 AND offset = 16")
    with pytest.raises(ChunkNotFoundError, match="nothing was sent"):
        _push_main(local, remote)
    assert remote.sent == []
    assert server.refs.get(MAIN) is None


def test_a_damaged_pack_is_not_sent(local: Side, remote: Watched, server: Store) -> None:
    commit(local.store, {"a": DATA})
    [(pack, entry), *_] = stores.local_entries(local.store, [Kind.CHUNK])
    flip(local.store.layout.pack(pack), entry.offset)
    with pytest.raises(ChunkCorruptedError):
        _push_main(local, remote)
    assert server.refs.get(MAIN) is None


def test_damage_is_healed_from_another_pack_on_the_way(
    local: Side, remote: Watched, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tip = commit(local.store, {"a": DATA})
    with monkeypatch.context() as patch:
        patch.setattr("shardfs.store.store.Batch.has", lambda *_: set())
        with local.store.batch() as batch:
            stores.put_tree(batch, {"a": DATA, "b": b"other"}, {})
    entry = next(e for _, e in stores.local_entries(local.store, [Kind.CHUNK]))
    location = local.store.find(entry.id)[-1]
    flip(local.store.layout.pack(location.pack), location.entry.offset)
    _push_main(local, remote)
    _assert_same_history(local, server, tip)
    there = Side(server)
    assert there.reader.chunk(entry.id, entry.raw_size)  # type: ignore[arg-type]


@pytest.mark.parametrize("failing", range(8))
def test_an_interrupted_push_goes_on(
    local: Side, remote: Watched, server: Store, failing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.store.packs.TARGET_SIZE", 4 * CHUNK_SIZE)
    with local.store.batch() as batch:
        batch.put(Kind.CHUNK, b"unreachable")
        stores.put_tree(batch, {"a": DATA[: 8 * CHUNK_SIZE]}, {})
    tip = commit(local.store, {"a": DATA})

    def fail(what: str) -> None:
        if what != "has" and len([c for c in remote.calls if c != "has"]) == failing:
            remote.calls.append("failed")
            msg = "broken line"
            raise RemoteUnavailableError(msg)

    remote.before = fail
    with pytest.raises(RemoteUnavailableError):
        _push_main(local, remote)
    assert server.refs.get(MAIN) is None
    before = set(remote.sent)
    _push_main(local, remote)
    _assert_same_history(local, server, tip)
    assert len(remote.sent) == len(set(remote.sent))
    assert before <= set(remote.sent)


def test_a_push_that_fails_early_of_many_packs_ends(
    local: Side, remote: Watched, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.store.packs.TARGET_SIZE", 2 * CHUNK_SIZE)
    monkeypatch.setattr("shardfs.transfer.sending._AHEAD", 4 * CHUNK_SIZE)  # packs are left that are not built yet
    with local.store.batch() as batch:
        batch.put(Kind.CHUNK, b"unreachable")
        stores.put_tree(batch, {"a": DATA[: 8 * CHUNK_SIZE]}, {})
    commit(local.store, {"a": DATA})

    def fail(what: str) -> None:
        if what == "put_pack":
            msg = "broken line"
            raise RemoteUnavailableError(msg)

    remote.before = fail
    with pytest.raises(RemoteUnavailableError, match="broken line"):
        _push_main(local, remote)
    assert list(local.store.layout.tmp.iterdir()) == []
    assert server.refs.get(MAIN) is None


def test_an_upload_that_fails_ends_those_beside_it(
    local: Side, remote: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.store.packs.TARGET_SIZE", 2 * CHUNK_SIZE)
    remote.resumes = True  # so that several are on their way at once
    commit(local.store, {"a": DATA})
    turns, others_began = count(), threading.Event()
    ended: list[bool] = []

    def upload(what: str) -> None:
        if what != "put_pack":
            return
        if next(turns) == 0:
            others_began.wait(10)
            msg = "broken line"
            raise RemoteUnavailableError(msg)
        others_began.set()
        for position in range(1000):
            meter.tell(position)
            time.sleep(0.005)
        ended.append(True)

    remote.before = upload
    with pytest.raises(RemoteUnavailableError, match="broken line"):
        _push_main(local, remote)
    assert others_began.is_set()
    assert not ended


def test_chunks_of_another_remote_are_passed_on(local: Side, remote: Watched, server: Store, tmp_path: Path) -> None:
    other = Store.create(tmp_path / "other")
    tip = commit(other, {"a": DATA})
    stores.know_remote_packs(local.store, other, "other")
    source = stores.FolderSource(other)
    side = Side(local.store)
    side.reader._remote = lambda _: source
    local.store.refs.move(MAIN, None, tip)
    _push(side, remote, RefUpdate(MAIN, tip))
    _assert_same_history(side, server, tip)
    other.close()
