"""A directory as a remote, where it differs from others: permissions, damage, disks."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from shardfs.errors import (
    IntegrityError,
    RemoteDeniedError,
    RemoteError,
    RemoteProtocolError,
    RemoteUnavailableError,
    StoreError,
)
from shardfs.formats.ids import CommitId, PackId
from shardfs.remotes.directory import DirectoryRemote
from shardfs.store.store import Store
from tests.stores import MAIN, make_store


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Store, list[CommitId], DirectoryRemote]]:
    store, commits = make_store(tmp_path / "place")
    remote = DirectoryRemote(tmp_path / "place")
    yield store, commits, remote
    remote.close()
    store.close()


def test_reading_writes_nothing(place: tuple[Store, list[CommitId], DirectoryRemote]) -> None:
    store, commits, remote = place
    store.close()
    for name in ("index.sqlite", "lock"):
        (store.layout.root / name).unlink()
    before = sorted(store.layout.root.rglob("*"))
    assert remote.refs().refs == {MAIN: commits[-1]}
    for pack in remote.list_packs():
        assert len(remote.read_pack(pack.id, 0, pack.size)) == pack.size
    assert sorted(store.layout.root.rglob("*")) == before


def test_damaged_copy_is_replaced_by_a_push(
    place: tuple[Store, list[CommitId], DirectoryRemote], tmp_path: Path
) -> None:
    store, _, _ = place
    target = DirectoryRemote(tmp_path / "target")
    pack_id = next(iter(store.index.packs()))
    target.put_pack(store.layout.pack(pack_id), pack_id)
    (tmp_path / "target" / "packs" / pack_id.hex()[:2] / f"{pack_id.hex()}.pack").unlink()
    target.put_pack(store.layout.pack(pack_id), pack_id)
    assert len(target.read_pack(pack_id, 0, 100)) == 100
    target.close()


def test_truncated_pack(place: tuple[Store, list[CommitId], DirectoryRemote]) -> None:
    store, _, remote = place
    pack_id = next(iter(store.index.packs()))
    os.truncate(store.layout.pack(pack_id), 50)
    with pytest.raises(RemoteProtocolError, match="ends early"):
        remote.read_pack(pack_id, 0, 100)


def test_damaged_ref(place: tuple[Store, list[CommitId], DirectoryRemote]) -> None:
    store, commits, remote = place
    store.layout.head.write_bytes(b"\xff")
    assert remote.refs() == (None, {MAIN: commits[-1]})
    store.layout.ref(MAIN).write_text("nonsense")
    with pytest.raises((RemoteError, IntegrityError)):
        remote.refs()


def test_local_pack_that_is_gone(place: tuple[Store, list[CommitId], DirectoryRemote], tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        place[2].put_pack(tmp_path / "gone", PackId(b"\1" * 32))


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, RemoteDeniedError),
        (errno.EDQUOT, RemoteDeniedError),
        (errno.EROFS, RemoteDeniedError),
        (errno.EIO, RemoteUnavailableError),
    ],
)
def test_disk_that_refuses(
    place: tuple[Store, list[CommitId], DirectoryRemote],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    expected: type[RemoteError],
) -> None:
    store, commits, _ = place
    target = DirectoryRemote(tmp_path / "target")
    pack_id, other = list(store.index.packs())[:2]
    target.put_pack(store.layout.pack(pack_id), pack_id)

    def refuse(_: int) -> NoReturn:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(expected):
            target.put_pack(store.layout.pack(other), other)
        with pytest.raises(RemoteError):
            target.update_ref(MAIN, None, commits[0])
    assert [p.id for p in target.list_packs()] == [pack_id]
    assert target.refs().refs == {}
    assert list((tmp_path / "target" / "tmp").iterdir()) == []
    target.put_pack(store.layout.pack(other), other)
    target.close()


def test_locked_by_another(
    place: tuple[Store, list[CommitId], DirectoryRemote], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardfs.remotes.directory._LOCK_WAIT_S", 0.05)
    store, commits, remote = place
    with store.lock.hold("gc"), pytest.raises(RemoteUnavailableError, match="locked"):
        remote.update_ref(MAIN, commits[-1], commits[0])
