"""What remotes do not give though they say that they have it: noted for each pack, so that all else can come."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Final

from shardfs.errors import (
    PackCorruptedError,
    PackNotFoundError,
    RemoteDownError,
    RemoteLoginError,
    RemoteOfflineError,
    RemoteProtocolError,
    RemoteUnreachableError,
    ShardfsError,
)
from shardfs.formats.ids import PackId
from shardfs.remotes import deadline

_OUTAGES: Final = (RemoteDownError, RemoteLoginError, RemoteOfflineError, RemoteUnreachableError)
_SOON_S: Final = 5.0  # that an answer is waited for after another one did not come within the deadline


def worst(failures: Iterable[ShardfsError]) -> ShardfsError | None:
    """Of what the remotes said that have one pack: what tells most of it; None when nobody said anything."""
    return min(failures, key=lambda e: (isinstance(e, _OUTAGES), isinstance(e, PackNotFoundError)), default=None)


class Losses:
    """The packs that could not be had. Safe to share between threads.

    Attributes:
        errors: why, by pack; for damage an `IntegrityError`.
    """

    def __init__(self) -> None:
        self.errors: dict[PackId, ShardfsError] = {}
        self._has_waited = False

    def patience(self) -> AbstractContextManager[None]:
        """For the block of a request: a disk with many bad places costs one deadline, not one for each."""
        return deadline.limit(_SOON_S) if self._has_waited else nullcontext()

    def note(self, pack: PackId, error: ShardfsError) -> None:
        """A pack could not be had.

        Raises:
            RemoteError: the error, when it is not about this pack but about all that is asked of the remote.
        """
        if isinstance(error, _OUTAGES):
            raise error
        if isinstance(error, RemoteProtocolError):
            error = PackCorruptedError(str(error))
        self._has_waited = self._has_waited or error.retryable
        self.errors.setdefault(pack, error)
