"""A repository in an object store.

Packs and listings lie where a store directory has them, so that a public bucket is a remote for everybody who only
reads, over HTTP. Refs are numbered states, see `states.py`.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs.errors import (
    PackNotFoundError,
    RefChangedError,
    RemoteDeniedError,
    RemoteError,
    RemoteProtocolError,
    RemoteUnavailableError,
    RepositoryNotFoundError,
    StoreError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId, PackId, from_hex, pack_path
from shardfs.formats.pack import MAX_PACK_SIZE
from shardfs.formats.ref import BRANCHES, TAGS, PackSize
from shardfs.formats.refstate import RefState
from shardfs.remotes import meter
from shardfs.remotes.base import RemoteRefs
from shardfs.remotes.objectstore.bucket import PART_SIZE, Bucket
from shardfs.remotes.objectstore.errors import ConditionUnknownError
from shardfs.remotes.objectstore.states import KEPT, States, new_id
from shardfs.store import packs

_log = logging.getLogger(__name__)

_MOVES: Final = 20  # attempts to move a ref while others move other refs
_PAUSE_S: Final = 0.2  # longest between the first two
_ROUNDS: Final = 5  # of writing listings while others write them
_MAX_LISTING: Final = 64 << 20  # bytes


class ObjectStoreRemote:
    """A remote in a bucket. One attempt per call; see `RetryingRemote`.

    Args:
        bucket: the place.
        name: how the user calls it.
    """

    knows_ids = False
    resumes = False

    def __init__(self, bucket: Bucket, *, name: str = "origin") -> None:
        self.name = name
        self.url = bucket.url
        self._bucket = bucket
        self._states = States(bucket)
        self._is_ready = False
        self._guard = threading.Lock()

    def refs(self) -> RemoteRefs:
        """See `Remote.refs`."""
        state = self._states.newest()
        if state is None:
            msg = f"no repository at {self.url}"
            raise RepositoryNotFoundError(msg)
        return RemoteRefs(state.head, state.refs)

    def list_packs(self) -> list[PackSize]:
        """See `Remote.list_packs`."""
        found = self._listed_packs()
        if not found and self.refs().refs:  # the client takes a page of somebody else for an empty listing
            msg = f"{self.url} lists branches and no packs"
            raise RemoteProtocolError(msg)
        return found

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        if length == 0:
            return b""
        data = self._bucket.get_range(pack_path(pack_id), offset, length)
        if data is None:
            msg = f"{self.url} has no pack {pack_id.hex()[:12]}"
            raise PackNotFoundError(msg)
        if len(data) != length:
            msg = f"pack {pack_id.hex()[:12]} of {self.url} ends early"
            raise RemoteProtocolError(msg)
        return data

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """See `Remote.has`; refused, as nobody at an object store knows."""
        del ids
        msg = f"{self.url} holds packs and does not know what is in them"
        raise RemoteDeniedError(msg)

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`. Makes the repository when there is none.

        Raises:
            StoreError, PackCorruptedError: the local file cannot be read.
        """
        if not self._is_ready:
            self._prepare()
        target = pack_path(pack_id)
        try:
            size = path.stat().st_size
            if self._bucket.size(target) == size:
                return
            if packs.hash_file(path) != pack_id:
                msg = f"content of {path.name} does not match pack id {pack_id.hex()[:12]}; it was not sent"
                raise RemoteDeniedError(msg)
            meter.tell(0)
            if size <= PART_SIZE and self._bucket.create(target, path.read_bytes()):
                meter.tell(size)
            else:
                self._bucket.put_file(target, path)
        except OSError as error:
            msg = f"pack {path} cannot be read: {error.strerror}"
            raise StoreError(msg) from error
        if self._bucket.size(target) != size:
            msg = f"pack {pack_id.hex()[:12]} has another size at {self.url} than what was sent"
            raise RemoteProtocolError(msg)

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """See `Remote.update_ref`. A ref that is at `new` already counts as moved.

        Whoever pushes has sent all that the commit needs: an object store cannot look.
        """
        if not name.startswith((BRANCHES, TAGS)) or not ref_format.is_ref_name(name):
            msg = f"only branches and tags can be moved, not {name[:80]!r}"
            raise RemoteDeniedError(msg)
        if new is None:
            self.refs()  # nothing is made to delete from
        state = self._prepare()
        for attempt in range(_MOVES):
            if self._is_moved(state, name, old, new):
                return
            time.sleep(random.uniform(0, _PAUSE_S * min(attempt + 1, 10)))
            state = self._states.newest() or state
        msg = f"{self.url}: too many others move refs at the same time"
        raise RemoteUnavailableError(msg)

    def close(self) -> None:
        """See `Remote.close`; connections end with the object."""

    def _is_moved(self, state: RefState, name: str, old: CommitId | None, new: CommitId | None) -> bool:
        """One attempt; False when another move of any ref came first."""
        current, after = state.refs.get(name), state
        if current != new:
            if current != old:
                msg = f"{name} on {self.url} moved to {current.hex()[:12] if current else 'nothing'}"
                raise RefChangedError(msg, current)
            _check_room(state, name)
            after = state.moved(name, new, new_id())
            if not self._states.add(after):
                return False
        try:
            self._publish()
            if after.number % KEPT == 0:
                self._states.thin_out()
        except RemoteError as error:  # the ref has moved; listings are right after the next push
            _log.warning("listings for readers over HTTP are not up to date: %s", error)
        return True

    def _prepare(self) -> RefState:
        """The newest state, of a repository that is made now if need be and of a store that can take moves."""
        with self._guard:
            if self._is_ready:
                return self._states.newest() or self._states.create_first()
            with suppress(ConditionUnknownError):
                self._is_ready = self._states.is_guarded()
                if self._is_ready:
                    return self._states.create_first()
        msg = (
            f"{self.url}: this object store does not keep If-None-Match, so pushes could undo each other; "
            "push to a server (`shardfs serve`) instead"
        )
        raise RemoteDeniedError(msg)

    def _publish(self) -> None:
        """Write the listings for readers that cannot list, until they are what is there."""
        for _ in range(_ROUNDS):
            state = self._states.newest()
            found = sorted(self._listed_packs(), key=lambda pack: pack.id)
            # A reader asks for refs first: packs that they need are listed before.
            wanted = {"info/packs": ref_format.packs_to_bytes(found)}
            if state is not None:
                wanted["info/refs"] = state.to_bytes()
            stale = [name for name, data in wanted.items() if self._bucket.get(name, _MAX_LISTING) != data]
            if not stale:
                return
            for name in stale:
                self._bucket.put(name, wanted[name])
        _log.info("%s: others keep writing the listings; the last one leaves them right", self.url)

    def _listed_packs(self) -> list[PackSize]:
        found = ((_pack_of(one.name), one.size) for one in self._bucket.list("packs"))
        return [PackSize(pack, size) for pack, size in found if pack is not None and 0 < size <= MAX_PACK_SIZE]


def _check_room(state: RefState, name: str) -> None:
    """Refuse a name that is a folder of another, or in one: a store directory could not hold both."""
    for other in state.refs:
        if other.startswith(f"{name}/") or name.startswith(f"{other}/"):
            msg = f"cannot create {name}: {other} exists"
            raise RemoteDeniedError(msg)


def _pack_of(path: str) -> PackId | None:
    name = path.rpartition("/")[2].removesuffix(".pack")
    if len(name) != 64 or set(name) - set("0123456789abcdef"):
        return None
    pack_id = PackId(from_hex(name, "pack id"))
    return pack_id if pack_path(pack_id) == path else None
