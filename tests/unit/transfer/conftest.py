from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.history.objects import Objects
from shardfs.remotes.base import Remote, RemoteRefs
from shardfs.remotes.directory import DirectoryRemote
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader


class Watched:
    """A remote that counts what is asked of it and can fail at any call."""

    def __init__(self, inner: Remote) -> None:
        self._inner = inner
        self.name, self.url, self.knows_ids, self.resumes = inner.name, inner.url, inner.knows_ids, inner.resumes
        self.calls: list[str] = []
        self.sent: list[PackId] = []
        self.read_bytes = 0
        self.before: Callable[[str], object] = lambda _: None

    def _note(self, what: str) -> None:
        self.before(what)
        self.calls.append(what)

    def refs(self) -> RemoteRefs:
        self._note("refs")
        return self._inner.refs()

    def list_packs(self) -> list[PackSize]:
        self._note("list_packs")
        return self._inner.list_packs()

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        self._note("read_pack")
        self.read_bytes += length
        return self._inner.read_pack(pack_id, offset, length)

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        self._note("has")
        return self._inner.has(ids)

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        self._note("put_pack")
        self._inner.put_pack(path, pack_id)
        self.sent.append(pack_id)

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        self._note("update_ref")
        self._inner.update_ref(name, old, new)

    def close(self) -> None:
        self._inner.close()


class Side:
    """A store and what reads it."""

    def __init__(self, store: Store, remote: Watched | None = None) -> None:
        self.store = store
        self.reader = Reader(store, remote=None if remote is None else lambda _: remote)
        self.objects = Objects(self.reader)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Side]:
    """An empty store."""
    store = Store.create(tmp_path / "local")
    yield Side(store)
    store.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Store]:
    """An empty store that `remote` is."""
    store = Store.create(tmp_path / "server")
    yield store
    store.close()


@pytest.fixture
def remote(server: Store) -> Iterator[Watched]:
    """The server's store as remote origin."""
    watched = Watched(DirectoryRemote(server.layout.root))
    yield watched
    watched.close()
