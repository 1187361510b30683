"""A folder behind nginx is a read-only remote; the configuration is the one of the manual."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import PackNotFoundError, RemoteDeniedError, RepositoryNotFoundError
from shardfs.formats.ids import CommitId, PackId
from shardfs.remotes.base import Remote, read_pack_tail
from shardfs.remotes.registry import open_remote
from shardfs.store.store import Store
from tests.serving import MAIN, make_store

MANUAL = Path(__file__).parents[2] / "docs/how-to/serve.md"
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def configuration(folder: Path, port: int) -> str:
    """The manual's configuration, moved to a folder and port of its own."""
    found = re.search(r"<!-- tested: nginx-static -->\n```nginx\n(.*?)```", MANUAL.read_text(), re.DOTALL)
    assert found is not None
    text = found[1]
    for old, new in (
        ("/srv/www/models", str(folder / "www")),
        ("/run/nginx-models.pid", str(folder / "nginx.pid")),
        ("127.0.0.1:8080", f"127.0.0.1:{port}"),
    ):
        assert old in text
        text = text.replace(old, new)
    temporary = "".join(
        f"    {kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    # Started by root, nginx would read as another user, who cannot enter the folders of tests.
    user = "user root;\n" if os.geteuid() == 0 else ""
    return user + "daemon off;\n" + text.replace("http {\n", "http {\n" + temporary, 1)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Store, list[CommitId]]]:
    assert NGINX is not None
    folder = tmp_path_factory.mktemp("nginx")
    store, commits = make_store(folder / "project")
    target = folder / "www" / "group" / "demo"
    target.mkdir(parents=True)
    for name in ("packs", "info"):
        shutil.copytree(store.layout.root / name, target / name)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "nginx.conf").write_text(configuration(folder, port))
    command = [NGINX, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_for(port, process)
            yield f"http://127.0.0.1:{port}/group/demo", store, commits
        finally:
            process.terminate()
            process.wait(20)
            store.close()


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    for _ in range(400):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            threading.Event().wait(0.02)
        else:
            return
    raise AssertionError("nginx did not start")


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
