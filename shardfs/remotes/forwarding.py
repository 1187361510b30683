"""The base of wrappers around a remote: everything passes through but what a wrapper is about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes.base import Remote, RemoteRefs


class ForwardingRemote:
    """A remote that asks another one.

    Args:
        inner: the remote to ask.
    """

    def __init__(self, inner: Remote) -> None:
        self._inner = inner
        self.name = inner.name
        self.url = inner.url
        self.knows_ids, self.resumes = inner.knows_ids, inner.resumes

    def refs(self) -> RemoteRefs:
        """See `Remote.refs`."""
        return self._inner.refs()

    def list_packs(self) -> list[PackSize]:
        """See `Remote.list_packs`."""
        return self._inner.list_packs()

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        return self._inner.read_pack(pack_id, offset, length)

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """See `Remote.has`."""
        return self._inner.has(ids)

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`."""
        self._inner.put_pack(path, pack_id)

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """See `Remote.update_ref`."""
        self._inner.update_ref(name, old, new)

    def close(self) -> None:
        """See `Remote.close`."""
        self._inner.close()
