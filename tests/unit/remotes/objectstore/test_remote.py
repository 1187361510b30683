from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from shardfs.errors import (
    PackCorruptedError,
    RefChangedError,
    RemoteDeniedError,
    RemoteProtocolError,
    RepositoryNotFoundError,
    StoreError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.refstate import RefState
from shardfs.remotes import meter
from shardfs.remotes.base import Remote
from shardfs.remotes.objectstore import bucket as bucket_module
from shardfs.remotes.objectstore import remote as remote_module
from shardfs.remotes.objectstore import states
from shardfs.remotes.objectstore.bucket import Bucket
from shardfs.remotes.objectstore.remote import ObjectStoreRemote
from shardfs.remotes.registry import open_remote
from shardfs.store.packs import hash_file
from shardfs.store.store import Store
from tests.s3server import Answer, Request, S3Server, error
from tests.stores import MAIN, make_store

A, B = CommitId(b"\xaa" * 32), CommitId(b"\xbb" * 32)
Local = tuple[Store, list[CommitId]]


@pytest.fixture
def bucket() -> Bucket:
    store = MemoryStore()
    return Bucket(lambda *_: store, "memory:", 30)


@pytest.fixture
def remote(bucket: Bucket) -> ObjectStoreRemote:
    return ObjectStoreRemote(bucket)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    store, commits = make_store(tmp_path / "local")
    yield store, commits
    store.close()


def send(store: Store, remote: Remote) -> None:
    for pack_id in store.index.packs():
        remote.put_pack(store.layout.pack(pack_id), pack_id)


def names(bucket: Bucket) -> set[str]:
    return {one.name for folder in ("packs", "info", "refs") for one in bucket.list(folder)}


def test_layout_is_that_of_a_store_directory_and_states(
    bucket: Bucket, remote: ObjectStoreRemote, local: Local
) -> None:
    store, commits = local
    send(store, remote)
    remote.update_ref(MAIN, None, commits[-1])
    packs = {store.layout.pack(p).relative_to(store.layout.root).as_posix() for p in store.index.packs()}
    refs = {f"refs/guard-{bucket.identity}", "refs/0000000000000000", "refs/0000000000000001"}
    assert names(bucket) == packs | refs | {"info/packs", "info/refs"}


def test_listings_are_those_of_a_static_remote(bucket: Bucket, remote: ObjectStoreRemote, local: Local) -> None:
    store, commits = local
    send(store, remote)
    remote.update_ref(MAIN, None, commits[-1])
    refs, packs = bucket.get("info/refs", 1 << 20), bucket.get("info/packs", 1 << 20)
    assert refs is not None
    assert packs is not None
    assert ref_format.refs_from_bytes(refs) == (MAIN, {MAIN: commits[-1]})
    assert {(p.id, p.size) for p in ref_format.packs_from_bytes(packs)} == set(store.index.packs().items())


def test_listings_that_a_killed_push_left_behind_are_mended_by_the_next(
    bucket: Bucket, remote: ObjectStoreRemote
) -> None:
    remote.update_ref(MAIN, None, A)
    for name in ("info/refs", "info/packs"):
        bucket.put(name, b"torn")
    remote.update_ref(MAIN, None, A)  # counts as moved
    assert ref_format.refs_from_bytes(bucket.get("info/refs", 1 << 20) or b"") == (MAIN, {MAIN: A})


def test_a_move_counts_though_listings_cannot_be_written(server: S3Server) -> None:
    def judge(request: Request) -> Answer | None:
        return error(403, "AccessDenied") if request.method == "PUT" and "/info/" in request.path else None

    server.judge = judge
    remote = open_remote("s3://bucket/demo")
    remote.update_ref(MAIN, None, A)
    assert remote.refs().refs == {MAIN: A}


def ignoring(server: S3Server) -> None:
    server.ignores_conditions = True


def racy(server: S3Server) -> None:
    server.is_racy = True


def candid(server: S3Server) -> None:
    server.judge = lambda request: error(501, "NotImplemented") if request.condition else None


@pytest.mark.parametrize("spoil", [ignoring, racy, candid])
def test_stores_that_replace_take_no_pushes_and_can_be_read(
    server: S3Server, local: Local, spoil: Callable[[S3Server], None]
) -> None:
    store, commits = local
    remote = open_remote("s3://bucket/demo")
    send(store, remote)
    remote.update_ref(MAIN, None, commits[0])
    # The same objects at another endpoint: what the first store has passed says nothing of the second.
    guard = next(name for name in server.objects if "/guard-" in name)
    server.objects[guard.replace("guard-", "guard-x")] = server.objects.pop(guard)
    spoil(server)
    before = {name for name in server.objects if "/race-" not in name}
    for _ in range(2):
        other = open_remote("s3://bucket/demo")
        with pytest.raises(RemoteDeniedError, match="does not keep If-None-Match"):
            other.update_ref(MAIN, commits[0], commits[1])
        with pytest.raises(RemoteDeniedError, match="does not keep If-None-Match"):
            send(store, other)
        assert other.refs().refs == {MAIN: commits[0]}
        assert len(other.list_packs()) == len(store.index.packs())
    assert {name for name in server.objects if "/race-" not in name} == before


def test_a_store_is_tried_out_once(server: S3Server) -> None:
    open_remote("s3://bucket/demo").update_ref(MAIN, None, A)
    assert any("/race-" in request.path for request in server.asked)
    server.asked.clear()
    open_remote("s3://bucket/demo").update_ref(MAIN, A, B)
    assert not any("/race-" in request.path for request in server.asked)


def test_a_machine_that_starts_threads_late_tries_all_the_same(
    server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "_START_S", 0.0)
    remote = open_remote("s3://bucket/demo")
    remote.update_ref(MAIN, None, A)
    assert remote.refs().refs == {MAIN: A}


def test_trying_out_that_fails_leaves_nothing(server: S3Server) -> None:
    tried = [0]

    def judge(request: Request) -> Answer | None:
        tried[0] += "/race-" in request.path and request.method == "PUT"
        return error(403, "AccessDenied") if tried[0] == 3 else None

    server.judge = judge
    with pytest.raises(RemoteDeniedError, match="may not"):
        open_remote("s3://bucket/demo").update_ref(MAIN, None, A)
    assert any(request.method == "POST" and b"/race-" in request.body for request in server.asked)


def test_what_other_tools_published_is_read_and_goes_on(bucket: Bucket, remote: ObjectStoreRemote) -> None:
    bucket.put("info/refs", ref_format.refs_to_bytes(MAIN, {MAIN: A}))
    assert remote.refs() == (MAIN, {MAIN: A})
    remote.update_ref(MAIN, A, B)
    assert ObjectStoreRemote(bucket).refs() == (MAIN, {MAIN: B})


def test_states_that_were_lost_go_on_from_the_listing(bucket: Bucket, remote: ObjectStoreRemote) -> None:
    remote.update_ref(MAIN, None, A)
    remote.update_ref(MAIN, A, B)
    bucket.delete([one.name for one in bucket.list("refs")])
    other = ObjectStoreRemote(bucket)
    assert other.refs().refs == {MAIN: B}
    other.update_ref("refs/tags/v1", None, A)
    assert [one.name for one in bucket.list("refs")][:2] == ["refs/0000000000000002", "refs/0000000000000003"]


def test_old_states_are_deleted(bucket: Bucket, remote: ObjectStoreRemote, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "KEPT", 5)
    monkeypatch.setattr(remote_module, "KEPT", 5)
    for number in range(23):
        remote.update_ref("refs/tags/t", A if number % 2 else None, None if number % 2 else A)
    numbers = sorted(one.name for one in bucket.list("refs") if "guard" not in one.name)
    assert 5 <= len(numbers) < 10
    assert numbers[-1] == "refs/0000000000000023"
    assert remote.refs().refs == {"refs/tags/t": A}


def test_a_sleeper_whose_number_was_deleted_does_not_win(
    bucket: Bucket, remote: ObjectStoreRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(states, "KEPT", 1)
    monkeypatch.setattr(remote_module, "KEPT", 1)
    remote.update_ref(MAIN, None, A)
    seen = states.States(bucket).newest()
    assert seen is not None
    late = seen.moved(MAIN, B, states.new_id())
    for number in range(4):
        remote.update_ref("refs/tags/t", A if number % 2 else None, None if number % 2 else A)
    assert f"refs/{late.number:016}" not in names(bucket)
    assert not states.States(bucket).add(late)
    assert f"refs/{late.number:016}" in names(bucket)
    assert remote.refs().refs[MAIN] == A
    with pytest.raises(RefChangedError):
        remote.update_ref(MAIN, B, None)


def test_a_long_pack_goes_in_parts_and_tells_how_far_it_is(
    bucket: Bucket, remote: ObjectStoreRemote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "long.pack"
    path.write_bytes(bytes(range(256)) * 400_000)  # 102 MB
    pack_id = hash_file(path)
    told: list[int] = []
    with meter.watch(told.append):
        remote.put_pack(path, pack_id)
    assert bucket.size(f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}.pack") == path.stat().st_size
    assert told == sorted(told)
    assert told[-1] == path.stat().st_size
    assert len(told) == -(-path.stat().st_size // bucket_module.PART_SIZE) + 2
    assert remote.read_pack(pack_id, 99_999_999, 3) == path.read_bytes()[99_999_999:100_000_002]


def test_a_short_pack_tells_that_it_is_sent_and_one_that_is_there_does_not(
    remote: ObjectStoreRemote, local: Local
) -> None:
    store, _ = local
    pack_id, size = next(iter(store.index.packs().items()))
    for expected in ([0, size], []):
        told: list[int] = []
        with meter.watch(told.append):
            remote.put_pack(store.layout.pack(pack_id), pack_id)
        assert told == expected


def test_what_an_upload_that_broke_left_is_replaced(bucket: Bucket, remote: ObjectStoreRemote, local: Local) -> None:
    store, _ = local
    pack_id = next(iter(store.index.packs()))
    target = f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}.pack"
    bucket.put(target, b"half")
    remote.put_pack(store.layout.pack(pack_id), pack_id)
    assert bucket.get(target, 1 << 20) == store.layout.pack(pack_id).read_bytes()


def test_a_damaged_pack_is_not_sent(bucket: Bucket, remote: ObjectStoreRemote, tmp_path: Path) -> None:
    path = tmp_path / "damaged.pack"
    path.write_bytes(b"something else")
    with pytest.raises(RemoteDeniedError, match="not sent"):
        remote.put_pack(path, PackId(b"\1" * 32))
    assert bucket.list("packs") == []


def test_a_pack_that_is_gone_here(remote: ObjectStoreRemote, tmp_path: Path) -> None:
    with pytest.raises((StoreError, PackCorruptedError)):
        remote.put_pack(tmp_path / "none.pack", PackId(b"\1" * 32))


def test_a_store_that_keeps_less_than_was_sent_is_found_out(server: S3Server, local: Local) -> None:
    store, _ = local
    pack_id = next(iter(store.index.packs()))
    remote = open_remote("s3://bucket/demo")

    def judge(_: Request) -> None:
        server.objects.update({name: b"less" for name in server.objects if name.startswith("demo/packs/")})

    server.judge = judge
    with pytest.raises(RemoteProtocolError, match="another size"):
        remote.put_pack(store.layout.pack(pack_id), pack_id)


def test_foreign_objects_are_no_packs(bucket: Bucket, remote: ObjectStoreRemote) -> None:
    remote.update_ref(MAIN, None, A)
    remote.update_ref(MAIN, A, None)
    name = "ab" * 32
    for path in (
        f"packs/ab/{name}.pack.tmp",
        f"packs/ac/{name}.pack",
        f"packs/ab/{name}",
        "packs/ü",
    ):
        bucket.put(path, b"foreign")
    bucket.put(f"packs/ab/{name}.pack", b"")
    assert remote.list_packs() == []
    bucket.put(f"packs/ab/{name}.pack", b"seven b")
    assert [p.size for p in remote.list_packs()] == [7]


def test_a_listing_that_lost_all_packs_is_not_believed(remote: ObjectStoreRemote) -> None:
    remote.update_ref(MAIN, None, A)
    with pytest.raises(RemoteProtocolError, match="lists branches and no packs"):
        remote.list_packs()


@pytest.mark.parametrize("rival", ["refs/heads/a/b", "refs/heads/a/b/c/d"])
def test_no_name_is_a_folder_of_another(remote: ObjectStoreRemote, rival: str) -> None:
    remote.update_ref("refs/heads/a/b/c", None, A)
    with pytest.raises(RemoteDeniedError, match="exists"):
        remote.update_ref(rival, None, A)


def test_deleting_makes_no_repository(bucket: Bucket, remote: ObjectStoreRemote) -> None:
    with pytest.raises(RepositoryNotFoundError):
        remote.update_ref(MAIN, A, None)
    assert names(bucket) == set()


def test_polling_costs_one_listing_when_nothing_moved(server: S3Server) -> None:
    remote = open_remote("s3://bucket/demo")
    remote.update_ref(MAIN, None, A)
    remote.refs()
    server.asked.clear()
    assert remote.refs().refs == {MAIN: A}
    assert [request.method for request in server.asked] == ["GET"]


def test_the_newest_state_is_read_again_when_the_place_was_made_anew(bucket: Bucket, remote: ObjectStoreRemote) -> None:
    remote.update_ref(MAIN, None, A)
    assert remote.refs().refs == {MAIN: A}
    bucket.delete([*names(bucket)])
    ObjectStoreRemote(bucket).update_ref(MAIN, None, B)
    assert remote.refs().refs == {MAIN: B}


def test_a_state_under_the_name_of_another_is_refused(bucket: Bucket, remote: ObjectStoreRemote) -> None:
    remote.update_ref(MAIN, None, A)
    state = states.States(bucket).newest()
    assert isinstance(state, RefState)
    bucket.put("refs/0000000000000009", state.to_bytes())
    with pytest.raises(RemoteProtocolError, match="says that it is 1"):
        remote.refs()
