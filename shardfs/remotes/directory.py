"""A repository in a directory of this machine: another disk, a network mount, a folder that a web server publishes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shardfs.errors import (
    ConflictError,
    FormatError,
    LockedError,
    NotFoundError,
    OutOfSpaceError,
    PackNotFoundError,
    ReadOnlyError,
    RefChangedError,
    RefCorruptedError,
    RemoteDeniedError,
    RemoteProtocolError,
    RemoteUnavailableError,
    RepositoryNotFoundError,
    StoreError,
)
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import BRANCHES, TAGS, PackSize
from shardfs.remotes import meter
from shardfs.remotes.base import RemoteRefs
from shardfs.store import atomic, packs
from shardfs.store.layout import Layout
from shardfs.store.locks import WriterLock
from shardfs.store.receive import open_or_create, receive_pack, receive_ref
from shardfs.store.refs import RefStore
from shardfs.store.store import Store

_LOCK_WAIT_S: Final = 10.0
_BLOCK_SIZE: Final = 1 << 20


class DirectoryRemote:
    """A store directory as a remote. Reading needs read permission only and never writes.

    Args:
        root: the store directory itself (a bare repository, or the `.shardfs` of a project).
        name: how the user calls it.
    """

    knows_ids = True
    resumes = False

    def __init__(self, root: Path, *, name: str = "origin") -> None:
        self.name = name
        self.url = str(root)
        self._layout = Layout(root)
        self._refs = RefStore(self._layout, WriterLock(self._layout.lock, _LOCK_WAIT_S))
        self._store: Store | None = None
        self._guard = threading.Lock()

    def refs(self) -> RemoteRefs:
        """See `Remote.refs`."""
        with self._errors():
            self._check_exists()
            refs = {**self._refs.list(BRANCHES), **self._refs.list(TAGS)}
            head = None
            with suppress(RefCorruptedError):
                head = self._refs.head().branch
            return RemoteRefs(head, refs)

    def list_packs(self) -> list[PackSize]:
        """See `Remote.list_packs`."""
        with self._errors():
            self._check_exists()
            return [PackSize(pack_id, size) for pack_id, size in packs.list_packs(self._layout).items()]

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        with self._errors():
            try:
                fd = os.open(self._layout.pack(pack_id), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                msg = f"{self.url} has no pack {pack_id.hex()[:12]}"
                raise PackNotFoundError(msg) from None
            try:
                data = os.pread(fd, length, offset)
            finally:
                os.close(fd)
        if len(data) != length:
            msg = f"pack {pack_id.hex()[:12]} of {self.url} ends early"
            raise RemoteProtocolError(msg)
        return data

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """See `Remote.has`."""
        with self._errors():
            self._check_exists()
            found = self._opened().index.has(ids, local=True)
        return [id_ in found for id_ in ids]

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`. Makes the repository when there is none; every byte is verified after the copy.

        Raises:
            StoreError: the local file cannot be read.
        """
        if not path.is_file():
            msg = f"pack {path} is not there any more"
            raise StoreError(msg)
        with self._errors():
            store = self._opened(create=True)
            if pack_id in store.index.packs() and self._layout.pack(pack_id).exists():
                return
            with atomic.writing(f"cannot copy pack {pack_id.hex()[:12]} to {self.url}"):
                temp = atomic.temp_name(self._layout.tmp)
                try:
                    _copy(path, temp)
                    receive_pack(store, temp, pack_id)
                finally:
                    temp.unlink(missing_ok=True)

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """See `Remote.update_ref`. A ref that is at `new` already counts as moved."""
        with self._errors():
            receive_ref(self._opened(create=new is not None), name, old, new, by="push")

    def close(self) -> None:
        """See `Remote.close`."""
        with self._guard:
            store, self._store = self._store, None
        if store is not None:
            store.close()

    def _check_exists(self) -> None:
        if not self._layout.config.is_file():
            msg = f"no repository at {self.url}"
            raise RepositoryNotFoundError(msg)

    def _opened(self, *, create: bool = False) -> Store:
        with self._guard:
            if self._store is None:
                root = self._layout.root
                self._store = open_or_create(root, _LOCK_WAIT_S) if create else Store(root, _LOCK_WAIT_S)
            return self._store

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn a store's errors into a remote's: it is another place, whose disk is not the user's own."""
        try:
            yield
        except (RepositoryNotFoundError, PackNotFoundError, RefChangedError):
            raise
        except (ReadOnlyError, OutOfSpaceError, PermissionError, ConflictError) as error:
            raise RemoteDeniedError(f"{self.url}: {error}") from error
        except (LockedError, StoreError, OSError) as error:
            raise RemoteUnavailableError(f"{self.url}: {error}") from error
        except (FormatError, NotFoundError, RefCorruptedError) as error:
            raise RemoteProtocolError(f"{self.url}: {error}") from error


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("xb") as writer:
        meter.tell(0)
        while block := reader.read(_BLOCK_SIZE):
            writer.write(block)
            meter.tell(writer.tell())
        writer.flush()
        os.fsync(writer.fileno())
