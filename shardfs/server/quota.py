"""How many bytes of packs a repository may have."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from aiohttp import web

from shardfs.errors import LockedError, OutOfSpaceError
from shardfs.server.receiving import unfinished
from shardfs.store.store import Store


class Quotas:
    """Room for what is being sent, so that two uploads at once cannot take the same room. Safe to share.

    The index of a repository and the files of unfinished uploads say what it has; so a restart changes nothing, and
    what is deleted is free again.

    Args:
        limit_of: most bytes of packs of a repository; None: as many as the disk takes.
    """

    def __init__(self, limit_of: Callable[[str], int | None]) -> None:
        self._limit_of = limit_of
        self._reserved: dict[str, list[Reservation]] = {}
        self._guard = threading.Lock()

    def reserve(self, repository: str, store: Store, id_: bytes, size: int | None) -> Reservation:
        """Keep room for what is sent, until the end of a `with` block around it.

        Args:
            repository: its name.
            store: its packs.
            id_: what is sent: a pack that is here already needs no room for what it has.
            size: its bytes; None: the client does not say.

        Raises:
            OutOfSpaceError: there is not so much room.
            LockedError: there is not, and the same is sent by somebody else already.
            web.HTTPLengthRequired: there is a quota, and the client does not say how long the body is.
        """
        limit = self._limit_of(repository)
        if limit is None:
            return Reservation(self, repository, id_, 0)
        if size is None:
            raise web.HTTPLengthRequired(text=f"{repository} has a quota: send Content-Length")
        with self._guard:
            others = self._reserved.get(repository, [])
            coming = {other.id for other in others}
            packs: dict[bytes, int] = dict(store.index.packs().items())
            parts = unfinished(store.layout)
            # Of what is sent twice at once the second copy has a file of its own.
            more = size if id_ in coming else max(size, parts.pop(id_, 0)) - packs.get(id_, 0)
            left = [here for part, here in parts.items() if part not in coming]
            used = sum((*packs.values(), *left, *(other.size for other in others)))
            if used + more > limit and id_ in coming:
                msg = f"these bytes come over another connection already, and {repository} has no room for them twice"
                raise LockedError(msg)
            if used + more > limit:
                msg = f"{repository} has a quota of {limit} bytes and uses {used}; {size} more do not fit"
                raise OutOfSpaceError(msg)
            kept = Reservation(self, repository, id_, max(0, more))
            self._reserved.setdefault(repository, []).append(kept)
            return kept

    def release(self, kept: Reservation) -> None:
        """Give room back that was reserved."""
        with self._guard:
            others = [other for other in self._reserved.pop(kept.repository, []) if other is not kept]
            if others:
                self._reserved[kept.repository] = others


class Reservation:
    """Room for something that is being sent, until the end of the block."""

    def __init__(self, quotas: Quotas, repository: str, id_: bytes, size: int) -> None:
        self._quotas = quotas
        self.repository = repository
        self.id = id_
        self.size = size

    def __enter__(self) -> None:
        """Nothing more to do: the room is kept already."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._quotas.release(self)
