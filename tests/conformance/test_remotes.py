"""What every remote must do; each kind of place runs the same tests.

The HTTP ones are real server processes, one of them behind nginx as the manual says; the object store is OpenStack
Swift, and obstore's in memory.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from shardfs.errors import (
    PackNotFoundError,
    RefChangedError,
    RemoteDeniedError,
    RemoteError,
    RepositoryNotFoundError,
    ShardfsError,
)
from shardfs.formats.ids import CommitId, PackId
from shardfs.remotes.base import Remote, read_pack_tail
from shardfs.remotes.objectstore.bucket import Bucket
from shardfs.remotes.objectstore.remote import ObjectStoreRemote
from shardfs.remotes.registry import open_remote
from shardfs.remotes.retry import RetryingRemote
from shardfs.store.store import Store
from tests.nginx import NGINX, free_port, manual, nginx, replaced
from tests.serving import serving, shardfs_serve
from tests.stores import MAIN, add_commit, make_store
from tests.swift import Swift

pytestmark = pytest.mark.network


class Place:
    """Where remotes can be: at `url` and, when it is a folder, below `root` on disk."""

    def __init__(self, url: str, root: Path | None = None) -> None:
        self.url = url
        self.root = root

    def remote(self, name: str) -> Remote:
        return open_remote(f"{self.url}/{name}")


class Memory(Place):
    """Object stores in the memory of this process."""

    def __init__(self) -> None:
        super().__init__("memory:")
        self._stores: defaultdict[str, MemoryStore] = defaultdict(MemoryStore)

    def remote(self, name: str) -> Remote:
        store = self._stores[name]
        return RetryingRemote(ObjectStoreRemote(Bucket(lambda *_: store, f"memory:/{name}", 30)))


@pytest.fixture(
    scope="module",
    params=[
        "directory",
        "http",
        pytest.param("proxy", marks=pytest.mark.skipif(NGINX is None, reason="nginx is not installed")),
        "memory",
        "s3",
    ],
)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if request.param == "memory":
        yield Memory()
        return
    if request.param == "s3":
        store: Swift = request.getfixturevalue("swift_store")
        store.make_bucket("conformance")
        with pytest.MonkeyPatch.context() as patch:
            store.use(patch)
            yield Place("s3://conformance")
        return
    root = tmp_path_factory.mktemp("place")
    if request.param == "directory":
        yield Place(root.as_uri(), root)
        return
    with (serving if request.param == "http" else shardfs_serve)(root) as server:
        if request.param == "http":
            yield Place(server.url, root)
            return
        folder, port = tmp_path_factory.mktemp("nginx"), free_port()
        location = replaced(manual("nginx-proxy"), {"http://127.0.0.1:8750": server.url})
        outside = f"server {{\n    listen 127.0.0.1:{port};\n{location}}}\n"
        configuration = f"pid {folder}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n{outside}}}\n"
        with nginx(folder, configuration, port):
            yield Place(f"http://127.0.0.1:{port}", root)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    return re.sub(r"[^a-z0-9_]", "-", request.node.name)[:90]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[tuple[Store, list[CommitId]]]:
    store, commits = make_store(tmp_path / "local")
    yield store, commits
    store.close()


@pytest.fixture
def remote(place: Place, name: str) -> Iterator[Remote]:
    remote = place.remote(name)
    yield remote
    remote.close()


def push(store: Store, remote: Remote) -> None:
    for pack_id in store.index.packs():
        remote.put_pack(store.layout.pack(pack_id), pack_id)


def test_nothing_there(remote: Remote) -> None:
    with pytest.raises(RepositoryNotFoundError):
        remote.refs()
    with pytest.raises(RepositoryNotFoundError):
        remote.list_packs()
    with pytest.raises(RepositoryNotFoundError if remote.knows_ids else RemoteDeniedError):
        remote.has([bytes(32)])
    with pytest.raises(ShardfsError):
        remote.read_pack(PackId(bytes(32)), 0, 10)


def test_push_then_read_everything(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, commits = local
    push(store, remote)
    remote.update_ref(MAIN, None, commits[-1])
    assert remote.refs().refs == {MAIN: commits[-1]}
    assert remote.refs().head == MAIN
    assert {(p.id, p.size) for p in remote.list_packs()} == set(store.index.packs().items())
    for pack in remote.list_packs():
        data = store.layout.pack(pack.id).read_bytes()
        assert remote.read_pack(pack.id, 0, pack.size) == data
        assert remote.read_pack(pack.id, 7, 1000) == data[7:1007]
        assert remote.read_pack(pack.id, pack.size - 1, 1) == data[-1:]
        assert remote.read_pack(pack.id, 5, 0) == b""
        for hint in (1, 300, 1 << 20):
            tail = read_pack_tail(remote, pack, hint)
            assert tail.entries == store.index.entries(pack.id)
            assert tail.data == data[tail.offset :]


def test_has(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, commits = local
    push(store, remote)
    if not remote.knows_ids:
        with pytest.raises(RemoteDeniedError, match="does not know"):
            remote.has([commits[0]])
        return
    absent = bytes(31) + b"\1"
    assert remote.has([commits[0], absent, commits[2]]) == [True, False, True]
    assert remote.has([]) == []
    many = [n.to_bytes(32, "big") for n in range(70_000)]
    assert remote.has([*many, commits[0]]) == [False] * 70_000 + [True]


def test_range_past_the_end_is_an_error(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, _ = local
    push(store, remote)
    pack_id, size = next(iter(store.index.packs().items()))
    for offset, length in ((size - 5, 10), (size, 1), (size + 1000, 1)):
        with pytest.raises(RemoteError):
            remote.read_pack(pack_id, offset, length)


def test_unknown_pack(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    push(local[0], remote)
    with pytest.raises(PackNotFoundError):
        remote.read_pack(PackId(b"\7" * 32), 0, 10)


def test_put_again_changes_nothing(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    push(local[0], remote)
    before = remote.list_packs()
    push(local[0], remote)
    assert remote.list_packs() == before


def test_wrong_pack_id_is_refused(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, _ = local
    pack_id = next(iter(store.index.packs()))
    with pytest.raises(RemoteError, match="does not match") as caught:
        remote.put_pack(store.layout.pack(pack_id), PackId(b"\1" * 32))
    assert not caught.value.retryable
    assert remote.list_packs() == []


def test_compare_and_swap(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, commits = local
    push(store, remote)
    remote.update_ref(MAIN, None, commits[0])
    with pytest.raises(RefChangedError) as caught:
        remote.update_ref(MAIN, None, commits[1])
    assert caught.value.current == commits[0]
    with pytest.raises(RefChangedError) as caught:
        remote.update_ref(MAIN, commits[1], commits[2])
    assert caught.value.current == commits[0]
    remote.update_ref(MAIN, commits[0], commits[1])
    remote.update_ref("refs/tags/größe/v1.0", None, commits[0])
    assert remote.refs().refs == {MAIN: commits[1], "refs/tags/größe/v1.0": commits[0]}
    remote.update_ref("refs/tags/größe/v1.0", commits[0], None)
    assert remote.refs().refs == {MAIN: commits[1]}
    with pytest.raises(RefChangedError) as caught:
        remote.update_ref("refs/tags/größe/v1.0", commits[0], commits[1])
    assert caught.value.current is None


def test_repeated_move_counts_as_done(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    """The answer to a move may be lost on the way; asking again must not look like a conflict."""
    store, commits = local
    push(store, remote)
    for _ in range(2):
        remote.update_ref(MAIN, None, commits[0])
    for _ in range(2):
        remote.update_ref(MAIN, commits[0], commits[1])
    for _ in range(2):
        remote.update_ref(MAIN, commits[1], None)


def test_first_branch_becomes_head(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, commits = local
    push(store, remote)
    remote.update_ref("refs/heads/other", None, commits[0])
    assert remote.refs().head == "refs/heads/other"
    remote.update_ref(MAIN, None, commits[0])
    assert remote.refs().head == "refs/heads/other"


def test_ref_may_not_name_what_is_not_there(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, commits = local
    if not remote.knows_ids:
        pytest.skip("only who knows its ids can tell that one is missing")
    packs = {pack_id: {e.id for e in store.index.entries(pack_id)} for pack_id in store.index.packs()}
    with_first = next(p for p, ids in packs.items() if commits[0] in ids)
    with_second = next(p for p, ids in packs.items() if commits[1] in ids)
    remote.put_pack(store.layout.pack(with_second), with_second)
    with pytest.raises(RemoteDeniedError, match="not complete"):
        remote.update_ref(MAIN, None, commits[1])  # its parent is missing
    assert remote.refs().refs == {}
    remote.put_pack(store.layout.pack(with_first), with_first)
    remote.update_ref(MAIN, None, commits[1])
    with pytest.raises(RemoteDeniedError, match="not complete"):
        remote.update_ref(MAIN, commits[1], commits[2])
    assert remote.refs().refs == {MAIN: commits[1]}


@pytest.mark.parametrize("bad", ["refs/heads/../x", "refs/remotes/origin/main", "HEAD", "refs/heads/a b", "main"])
def test_bad_ref_names_are_refused(remote: Remote, local: tuple[Store, list[CommitId]], bad: str) -> None:
    store, commits = local
    push(store, remote)
    with pytest.raises(ShardfsError) as caught:
        remote.update_ref(bad, None, commits[0])
    assert not caught.value.retryable
    assert remote.refs().refs == {}


def test_of_many_that_move_a_ref_one_wins(place: Place, name: str, local: tuple[Store, list[CommitId]]) -> None:
    store, commits = local
    rivals = [add_commit(store, commits[-1], 10 + n, move=None) for n in range(6)]
    first = place.remote(name)
    push(store, first)
    first.update_ref(MAIN, None, commits[-1])
    won: list[CommitId] = []
    lost: list[CommitId | None] = []

    def race(commit: CommitId) -> None:
        remote = place.remote(name)
        try:
            remote.update_ref(MAIN, commits[-1], commit)
            won.append(commit)
        except RefChangedError as error:
            lost.append(CommitId(error.current) if error.current else None)
        finally:
            remote.close()

    threads = [threading.Thread(target=race, args=(c,)) for c in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert lost == won * 5
    assert first.refs().refs[MAIN] == won[0]
    first.close()


def test_threads_share_a_remote(remote: Remote, local: tuple[Store, list[CommitId]]) -> None:
    store, _ = local
    push(store, remote)
    contents = {p: store.layout.pack(p).read_bytes() for p in store.index.packs()}
    wrong: list[object] = []

    rounds = 60 if remote.knows_ids else 15  # Swift takes some ms for each

    def read(seed: int) -> None:
        for number in range(rounds):
            for pack_id, data in contents.items():
                offset = (seed * 977 + number * 131) % (len(data) - 300)
                if remote.read_pack(pack_id, offset, 300) != data[offset : offset + 300]:
                    wrong.append(offset)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_was_pushed_is_a_store(place: Place, name: str, local: tuple[Store, list[CommitId]]) -> None:
    if place.root is None:
        pytest.skip("no folder of this machine")
    store, commits = local
    remote = place.remote(name)
    push(store, remote)
    remote.update_ref(MAIN, None, commits[-1])
    remote.close()
    pushed = Store(place.root / name)
    assert pushed.refs.get(MAIN) == commits[-1]
    assert pushed.index.packs() == store.index.packs()
    assert pushed.index.check() == []
    assert list(pushed.layout.tmp.iterdir()) == []
    pushed.close()
