"""A push that fails says why in one line, and what it sent is not lost."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import OutOfSpaceError, RefChangedError, RemoteDeniedError
from shardfs.formats.ids import CommitId, Kind
from shardfs.remotes.directory import DirectoryRemote
from shardfs.remotes.http import HttpRemote
from shardfs.store.store import Store
from shardfs.transfer.push import PushReport, RefUpdate, push
from tests import stores
from tests.serving import serving
from tests.stores import MAIN, commit
from tests.unit.transfer.conftest import Side, Watched

SIZE = 3_000_000


def half_private(folder: Path) -> Side:
    """A store with a commit of 3 MB whose pack cannot go as it is."""
    store = Store.create(folder)
    files = {"a": os.urandom(SIZE)}
    with store.batch() as batch:
        batch.put(Kind.CHUNK, b"private")
        stores.put_tree(batch, files, {})
    commit(store, files)
    return Side(store)


def push_main(side: Side, remote: Watched | HttpRemote | DirectoryRemote) -> PushReport:
    return push(side.store, side.reader, side.objects, remote, [RefUpdate(MAIN, side.store.refs.get(MAIN))])


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root")
def test_the_disk_here_is_full(disk: Path, tmp_path: Path) -> None:
    side = half_private(disk / "local")
    filler = disk / "filler"
    status = os.statvfs(disk)
    filler.write_bytes(bytes(status.f_bavail * status.f_frsize - SIZE // 2))
    remote = DirectoryRemote(tmp_path / "origin")
    with pytest.raises(OutOfSpaceError, match="free some space") as caught:
        push_main(side, remote)
    assert len(str(caught.value).splitlines()) == 1
    assert list(side.store.layout.tmp.iterdir()) == []
    filler.unlink()
    push_main(side, remote)
    assert remote.refs().refs[MAIN] == side.store.refs.get(MAIN)
    remote.close()
    side.store.close()


@pytest.mark.network
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root")
def test_a_server_leaves_room_on_its_disk(disk: Path, tmp_path: Path) -> None:
    """Less than 64 MiB are free, though the pack would fit."""
    side = half_private(tmp_path / "local")
    Store.create(disk / "root/demo").close()
    with serving(disk / "root") as server:
        remote = HttpRemote(f"{server.url}/demo")
        with pytest.raises(RemoteDeniedError, match="the server's disk is full"):
            push_main(side, remote)
        assert list((disk / "root/demo/tmp").iterdir()) == []
        remote.close()
    side.store.close()


@pytest.mark.network
def test_the_remote_is_full(tmp_path: Path) -> None:
    side = half_private(tmp_path / "local")
    Store.create(tmp_path / "root/demo").close()
    with serving(tmp_path / "root") as server:
        # A limit on the size of files is the full disk that a test can have, and take away again.
        usual = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (1_500_000, resource.RLIM_INFINITY))
        remote = HttpRemote(f"{server.url}/demo")
        with pytest.raises(RemoteDeniedError, match="507") as caught:
            push_main(side, remote)
        assert len(str(caught.value).splitlines()) == 1
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, usual)
        push_main(side, remote)
        assert remote.refs().refs[MAIN] == side.store.refs.get(MAIN)
        remote.close()
    side.store.close()


def test_somebody_moves_the_ref_meanwhile(tmp_path: Path) -> None:
    side = half_private(tmp_path / "local")
    server = Store.create(tmp_path / "origin")
    remote = Watched(DirectoryRemote(tmp_path / "origin"))
    theirs: list[CommitId] = []

    def interfere(what: str) -> None:
        if what == "update_ref" and not theirs:
            theirs.append(commit(server, {"theirs": b"x"}))

    remote.before = interfere
    with pytest.raises(RefChangedError, match="`shardfs pull origin`, then push again") as caught:
        push_main(side, remote)
    assert caught.value.current == theirs[0]
    remote.sent.clear()
    update = RefUpdate(MAIN, side.store.refs.get(MAIN))
    push(side.store, side.reader, side.objects, remote, [update], force=True)
    assert remote.sent == []
    assert server.refs.get(MAIN) == side.store.refs.get(MAIN)
    remote.close()
    server.close()
    side.store.close()
