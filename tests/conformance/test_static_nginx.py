"""A folder behind nginx is a read-only remote; the configuration is the one of the manual."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from shardfs.errors import PackNotFoundError, RemoteDeniedError, RepositoryNotFoundError
from shardfs.formats.ids import CommitId, PackId
from shardfs.remotes.base import Remote, read_pack_tail
from shardfs.remotes.registry import open_remote
from shardfs.store.store import Store
from tests.nginx import NGINX, free_port, manual, nginx, replaced
from tests.stores import MAIN, make_store

pytestmark = [pytest.mark.network, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Store, list[CommitId]]]:
    folder = tmp_path_factory.mktemp("nginx")
    store, commits = make_store(folder / "project")
    target = folder / "www" / "group" / "demo"
    target.mkdir(parents=True)
    for name in ("packs", "info"):
        shutil.copytree(store.layout.root / name, target / name)
    port = free_port()
    changes = {
        "/srv/www/models": str(folder / "www"),
        "/run/nginx-models.pid": str(folder / "nginx.pid"),
        "127.0.0.1:8080": f"127.0.0.1:{port}",
    }
    with nginx(folder, replaced(manual("nginx-static"), changes), port):
        yield f"http://127.0.0.1:{port}/group/demo", store, commits
    store.close()


@pytest.fixture
def remote(published: tuple[str, Store, list[CommitId]]) -> Iterator[Remote]:
    remote = open_remote(published[0])
    yield remote
    remote.close()


def test_everything_can_be_read(published: tuple[str, Store, list[CommitId]], remote: Remote) -> None:
    _, store, commits = published
    assert remote.refs() == (MAIN, {MAIN: commits[-1]})
    packs = remote.list_packs()
    assert {p.id: p.size for p in packs} == store.index.packs()
    for pack in packs:
        data = store.layout.pack(pack.id).read_bytes()
        assert remote.read_pack(pack.id, 0, pack.size) == data
        assert remote.read_pack(pack.id, 11, 100) == data[11:111]
        assert read_pack_tail(remote, pack, 200).entries == store.index.entries(pack.id)


def test_nothing_can_be_changed(published: tuple[str, Store, list[CommitId]], remote: Remote) -> None:
    _, store, commits = published
    pack_id = next(iter(store.index.packs()))
    path = store.layout.pack(pack_id)
    remote.put_pack(path, pack_id)  # it is there already
    with pytest.raises(RemoteDeniedError, match="does not accept changes"):
        remote.put_pack(path, PackId(b"\1" * 32))
    with pytest.raises(RemoteDeniedError, match="does not accept changes"):
        remote.update_ref(MAIN, commits[-1], commits[0])


def test_absence(published: tuple[str, Store, list[CommitId]], remote: Remote) -> None:
    with pytest.raises(PackNotFoundError):
        remote.read_pack(PackId(b"\1" * 32), 0, 10)
    nowhere = open_remote(published[0] + "x")
    with pytest.raises(RepositoryNotFoundError):
        nowhere.refs()
    nowhere.close()
