"""What nginx hands out while a repository is published again and again: always a whole repository."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.formats.ids import CommitId
from shardfs.maintenance.gc import gc
from shardfs.remotes.registry import open_remote
from shardfs.transfer.publish import publish
from tests.nginx import NGINX, free_port, manual, nginx, replaced
from tests.stores import MAIN, add_commit, commit, make_store
from tests.unit.maintenance.conftest import objects_of

pytestmark = [pytest.mark.network, pytest.mark.skipif(NGINX is None, reason="nginx is not installed")]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A URL and the folder behind it."""
    port = free_port()
    changes = {
        "/srv/www/models": str(tmp_path / "www"),
        "/run/nginx-models.pid": str(tmp_path / "nginx.pid"),
        "127.0.0.1:8080": f"127.0.0.1:{port}",
    }
    with nginx(tmp_path, replaced(manual("nginx-static"), changes), port):
        yield f"http://127.0.0.1:{port}/demo", tmp_path / "www/demo"


def read_all(url: str) -> CommitId:
    """Whatever a reader finds there now must be complete; the tip of main."""
    remote = open_remote(url)
    try:
        tips = remote.refs().refs
        packs = {pack.id: pack.size for pack in remote.list_packs()}
        for pack_id, size in packs.items():
            assert len(remote.read_pack(pack_id, 0, size)) == size
    finally:
        remote.close()
    return tips[MAIN]


def test_readers_while_it_is_published(served: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = served
    store, commits = make_store(tmp_path / "store", 1)
    publish(store, folder)
    done = threading.Event()
    failures: list[BaseException] = []
    seen: set[CommitId] = set()

    def keep_reading() -> None:
        try:
            while not done.is_set():
                seen.add(read_all(url))
        except BaseException as error:  # noqa: BLE001 - told to the test
            failures.append(error)

    readers = [threading.Thread(target=keep_reading) for _ in range(2)]
    for reader in readers:
        reader.start()
    tip = commits[-1]
    for number in range(15):
        tip = add_commit(store, tip, 10 + number)
        lost = commit(store, {"x": b"%d" % number}, branch="x", parents=[])
        publish(store, folder)
        store.refs.move("refs/heads/x", lost, None, author="x", message="x")
        (store.layout.root / "logs/refs/heads/x~").unlink()
        gc(store, objects_of(store), grace_s=0)
        publish(store, folder)
    while tip not in seen and not failures:
        threading.Event().wait(0.01)
    done.set()
    for reader in readers:
        reader.join()
    assert not failures, failures[0]
    assert len(seen) > 1
    store.close()


def test_clone_of_what_was_published(served: tuple[str, Path], tmp_path: Path) -> None:
    url, folder = served
    with shardfs.init(tmp_path / "project") as repository:
        (tmp_path / "project/model").write_bytes(bytes(range(256)) * 1000)
        repository.add([tmp_path / "project/model"])
        tip = repository.commit("first")
    publishing = [sys.executable, "-m", "shardfs_cli", "publish", str(folder)]
    subprocess.run([*publishing, "--repository", str(tmp_path / "project")], check=True, capture_output=True)
    folder = folder / "project"
    checking = [sys.executable, "-m", "shardfs_cli", "publish", "--check", str(folder)]
    assert "is whole" in subprocess.run(checking, check=True, capture_output=True, text=True).stdout
    with shardfs.clone(f"{url}/project", tmp_path / "clone") as clone:
        assert clone.head_commit() == tip
        assert clone.read("HEAD:model").read() == bytes(range(256)) * 1000
    next((folder / "packs").glob("*/*.pack")).unlink()
    broken = subprocess.run(checking, check=False, capture_output=True, text=True)
    assert broken.returncode == 13
    assert "is listed and not there" in broken.stderr
