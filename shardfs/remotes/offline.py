"""A remote that is not asked: what all remotes are while a program is offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from shardfs.errors import RemoteOfflineError
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes.base import Remote, RemoteRefs


class OfflineRemote:
    """Stands for a remote and refuses everything at once.

    Args:
        inner: the remote; nothing was asked of it yet.
    """

    knows_ids = False
    resumes = False

    def __init__(self, inner: Remote) -> None:
        self.name, self.url = inner.name, inner.url

    def refs(self) -> RemoteRefs:
        """Raises RemoteOfflineError."""
        self._refuse()

    def list_packs(self) -> list[PackSize]:
        """Raises RemoteOfflineError."""
        self._refuse()

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """Raises RemoteOfflineError."""
        self._refuse()

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """Raises RemoteOfflineError."""
        self._refuse()

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """Raises RemoteOfflineError."""
        self._refuse()

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """Raises RemoteOfflineError."""
        self._refuse()

    def close(self) -> None:
        """Do nothing."""

    def _refuse(self) -> NoReturn:
        msg = f"{self.name} is not asked: offline by --offline, SHARDFS_OFFLINE or remote.offline"
        raise RemoteOfflineError(msg)
