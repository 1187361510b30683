"""What a push plans to send, to the byte, and what it asks before."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from shardfs.codecs import registry
from shardfs.errors import RemoteDeniedError
from shardfs.formats.ids import ChunkId, CommitId, Kind, PackId, chunk_id
from shardfs.store.store import Batch, Store
from shardfs.transfer.push import PushReport, RefUpdate, push
from tests import stores
from tests.stores import CHUNK_SIZE, MAIN, changed, commit, noise
from tests.unit.transfer.conftest import Side, Watched

DATA = noise(1, 40 * CHUNK_SIZE)


def push_main(local: Side, remote: Watched, *, dry_run: bool = False) -> PushReport:
    update = RefUpdate(MAIN, local.store.refs.get(MAIN))
    return push(local.store, local.reader, local.objects, remote, [update], dry_run=dry_run)


class Counting(Watched):
    """Counts the ids that are asked for, too."""

    def __init__(self, inner: Watched) -> None:
        super().__init__(inner)
        self.asked: list[int] = []

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        self.asked.append(len(ids))
        return super().has(ids)


class Mute(Watched):
    """A place that does not know which ids it has."""

    def __init__(self, inner: Watched) -> None:
        super().__init__(inner)
        self.knows_ids = False

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        raise RemoteDeniedError(f"cannot say which of {len(ids)} it has")


def stored(server: Store) -> int:
    return sum(server.index.packs().values())


def test_a_dry_run_tells_the_bytes_and_sends_nothing(
    local: Side, remote: Watched, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.store.packs.TARGET_SIZE", 8 * CHUNK_SIZE)
    with local.store.batch() as batch:  # a pack of which not everything is wanted, so that the rest is packed anew
        batch.put(Kind.CHUNK, b"private")
        stores.put_tree(batch, {"a": DATA[: 20 * CHUNK_SIZE]}, {})
    tip = commit(local.store, {"a": DATA})
    plan = push_main(local, remote, dry_run=True)
    assert (remote.sent, server.refs.get(MAIN), server.index.packs()) == ([], None, {})
    assert (plan.dry_run, [m.new for m in plan.moved], plan.encoded) == (True, [tip], 0)
    done = push_main(local, remote)
    assert (plan.bytes, plan.packs, plan.chunks, plan.objects) == (done.bytes, done.packs, done.chunks, done.objects)
    assert (done.bytes, done.packs) == (stored(server), len(server.index.packs()))
    assert done.packs > 4
    again = push_main(local, remote, dry_run=True)
    assert (again.bytes, again.moved, again.up_to_date) == (0, [], [MAIN])


def test_a_dry_run_tells_what_would_be_refused(local: Side, remote: Watched, server: Store) -> None:
    theirs, ours = commit(server, {"theirs": b"1"}), commit(local.store, {"ours": b"1"})
    plan = push_main(local, remote, dry_run=True)
    [refused] = plan.rejected
    assert (refused.name, refused.old, refused.new) == (MAIN, theirs, ours)
    assert "pull" in refused.reason
    assert (plan.moved, plan.bytes) == ([], 0)


def test_many_ids_take_few_questions(local: Side, remote: Watched, server: Store) -> None:
    commit(server, {"other": b"1"}, branch="other")
    pieces = [b"%d" % number for number in range(20_000)]
    tip = commit(local.store, {f"f{number}": piece for number, piece in enumerate(pieces)})
    remote = Counting(remote)
    push_main(local, remote)
    assert server.refs.get(MAIN) == tip
    assert len(remote.asked) == 2
    assert sum(remote.asked) == 20_002


def test_what_the_file_had_before_is_not_asked_for(local: Side, remote: Watched, server: Store) -> None:
    commit(local.store, {"a": DATA})
    push_main(local, remote)
    tip = commit(local.store, {"a": DATA[:-1] + b"x"})
    remote = Counting(remote)
    push_main(local, remote)
    assert server.refs.get(MAIN) == tip
    assert remote.asked == [4]  # a chunk, the manifest, the tree, the commit


def test_a_place_that_does_not_know_its_ids_is_asked_for_its_tables(
    local: Side, remote: Watched, server: Store
) -> None:
    commit(server, {"theirs": DATA}, branch="other")
    tip = commit(local.store, {"ours": DATA, "more": b"x"})
    report = push_main(local, Mute(remote))
    assert report.bytes < len(DATA) // 2
    assert server.refs.get(MAIN) == tip


def test_an_empty_place_that_does_not_know_its_ids(local: Side, remote: Watched, tmp_path: Path) -> None:
    tip = commit(local.store, {"a": DATA})
    push_main(local, Mute(remote))
    assert remote.refs().refs == {MAIN: tip}


def put_chain(batch: Batch, length: int) -> list[bytes]:
    """Chunks of which each is a difference to the one before; their contents."""
    contents = [noise(5, CHUNK_SIZE)]
    batch.put(Kind.CHUNK, contents[0])
    for number in range(1, length):
        data = changed(contents[-1], 40 * number)
        encoded = registry.encode(data, None, [registry.Base(chunk_id(contents[-1]), contents[-1])])
        assert encoded.bases
        batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, len(data))
        contents.append(data)
    return contents


def commit_of(local: Side, *contents: bytes) -> CommitId:
    return commit(local.store, {f"{number}": data for number, data in enumerate(contents)})


@pytest.mark.parametrize(("pushed", "goes_alone"), [([1], True), ([1, 2, 3], False)])
def test_a_base_that_nobody_asked_for_goes_where_it_saves_bytes(
    local: Side, remote: Watched, server: Store, pushed: list[int], goes_alone: bool
) -> None:
    base = noise(5, CHUNK_SIZE)
    versions = [changed(base, 40 * number) for number in range(4)]
    with local.store.batch() as batch:
        for number in range(1, 4):
            stores.put_delta(batch, versions[number], base)
    commit_of(local, *(versions[number] for number in pushed))
    plan, done = push_main(local, remote, dry_run=True), push_main(local, remote)
    has_base = server.index.has([chunk_id(base)]) == {chunk_id(base)}
    assert has_base is not goes_alone
    assert (plan.encoded > 0) is goes_alone
    assert done.bytes <= plan.bytes
    assert done.bytes < (len(pushed) + 1) * CHUNK_SIZE + 2000
    there = Side(server)
    assert all(there.reader.chunk(ChunkId(chunk_id(versions[n])), CHUNK_SIZE) == versions[n] for n in pushed)


@pytest.mark.parametrize("whole", [True, False])
def test_a_difference_is_pushed_without_its_base(
    local: Side, remote: Watched, server: Store, tmp_path: Path, whole: bool
) -> None:
    """What is packed as a difference to what only the remote has goes there as it is; the base is not fetched."""
    base = noise(5, CHUNK_SIZE)
    commit(server, {"model": base})
    stores.know_remote_packs(local.store, server)
    data = changed(base, 100)
    encoded = registry.encode(data, None, [registry.Base(chunk_id(base), base)])
    with local.store.batch() as batch:
        if not whole:
            batch.put(Kind.CHUNK, b"private")
        batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, len(data))
        if whole:
            stores.put_tree(batch, {"new": data}, {})
    with local.store.batch() as batch:
        stores.put_tree(batch, {"new": data}, {})
    tip = commit(local.store, {"new": data}, branch="mine")
    update = RefUpdate("refs/heads/mine", tip)
    report = push(local.store, local.reader, local.objects, remote, [update])
    assert "read_pack" not in remote.calls
    assert report.bytes < CHUNK_SIZE // 2
    assert Side(server).reader.chunk(ChunkId(chunk_id(data)), len(data)) == data


def test_packs_arrive_after_those_that_they_differ_from(
    local: Side, remote: Watched, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.store.packs.TARGET_ENTRIES", 1)
    with local.store.batch() as batch:
        contents = put_chain(batch, 6)
    tip = commit_of(local, *reversed(contents))
    push_main(local, remote)
    assert server.refs.get(MAIN) == tip
    assert len(remote.sent) >= 6


@pytest.mark.parametrize("resumes", [False, True])
def test_what_could_be_sent_twice_is_one_pack(
    local: Side, remote: Watched, server: Store, monkeypatch: pytest.MonkeyPatch, *, resumes: bool
) -> None:
    monkeypatch.setattr("shardfs.store.packs.TARGET_SIZE", 4 * CHUNK_SIZE)
    tip = commit(local.store, {"a": DATA})
    remote = Slow(remote, resumes=resumes)
    push_main(local, remote)
    assert server.refs.get(MAIN) == tip
    assert len(remote.sent) > 4
    assert (remote.most > max(remote.sizes)) is resumes


class Slow(Watched):
    """Takes its time over a pack, and knows how much is on its way."""

    def __init__(self, inner: Watched, *, resumes: bool) -> None:
        super().__init__(inner)
        self.resumes = resumes
        self.sizes: list[int] = []
        self.most = self._now = 0
        self._guard = threading.Lock()

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        size = path.stat().st_size
        with self._guard:
            self.sizes.append(size)
            self._now += size
            self.most = max(self.most, self._now)
        time.sleep(0.05)
        super().put_pack(path, pack_id)
        with self._guard:
            self._now -= size
