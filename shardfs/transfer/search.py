"""One search for an id: what is looked for, for whom, and what went wrong so far."""

from __future__ import annotations

import time

from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    ChunkCorruptedError,
    ChunkNotFoundError,
    ObjectCorruptedError,
    ObjectNotFoundError,
    RemoteError,
    ShardfsError,
)
from shardfs.formats.ids import Kind
from shardfs.store.lost import Lost


class Search:
    """One search for an id.

    Attributes:
        above: the search for a chunk that needs this one as its base.
        as_stored: whether the payload matters too: packs before a cache that may hold plaintext.
        is_exact: whether remotes come before it, too.
        is_tied: whether it may have failed because of what is above it.
        base_error: of the last base that could not be read.
        encoded: the good copy.
    """

    def __init__(
        self,
        kind: Kind,
        id_: bytes,
        raw_size: int | None,
        above: Search | None = None,
        *,
        as_stored: bool = False,
        is_exact: bool = False,
    ) -> None:
        self.kind, self.id, self.raw_size = kind, id_, raw_size
        self.above = above
        self.as_stored, self.is_exact = as_stored, is_exact
        self.trail: tuple[bytes, ...] = (*above.trail, id_) if above else (id_,)
        self.lost: Lost = above.lost if above else Lost()
        self.is_tied = False
        self.base_error: ShardfsError | None = None
        self.started = time.monotonic()
        self.problems: list[str] = []
        self.remote_error: RemoteError | None = None
        self.encoded: Encoded | None = None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return f"{self.kind.name.lower()} {self.id.hex()[:12]}"

    @property
    def is_inconclusive(self) -> bool:
        """Whether a failure says nothing about the copy: below other chunks it may be read."""
        return self.is_tied and self.above is not None

    def error(self) -> ShardfsError:
        """What to raise when no copy was good."""
        if self.remote_error is not None:
            return self.remote_error
        if self.above is not None and self.base_error is not None:
            return self.base_error  # the chunk at the bottom is what is wrong
        chunk = self.kind is Kind.CHUNK
        if self.problems:
            msg = f"{self.name} has no good copy: {'; '.join(self.problems[:4])}"
            return (ChunkCorruptedError if chunk else ObjectCorruptedError)(msg)
        msg = f"{self.name} is in no pack that is known here; `shardfs fetch` asks the remote for new ones"
        return (ChunkNotFoundError if chunk else ObjectNotFoundError)(msg)
