"""Whether a move of a ref takes something away."""

from __future__ import annotations

from shardfs.errors import ConflictError, IntegrityError, NotFoundError
from shardfs.formats.ids import CommitId, Kind
from shardfs.formats.ref import BRANCHES
from shardfs.history.objects import Objects
from shardfs.history.walk import is_ancestor
from shardfs.store.plaintext import read_plaintext
from shardfs.store.store import Store


class _Local:
    """The objects of a store, and nothing from elsewhere."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def object(self, kind: Kind, id_: bytes) -> bytes:
        return read_plaintext(self._store, id_, kind)


def loses(store: Store, name: str, old: CommitId, new: CommitId) -> bool:
    """Whether a move leaves commits behind that the ref had. A tag that moves always does: people rely on it.

    Where the history cannot be read, it does.

    Raises:
        ConflictError: `new` is not here. It might come before the ref moves, unseen by this.
    """
    if old == new:
        return False
    if not name.startswith(BRANCHES):
        return True
    objects = Objects(_Local(store))
    try:
        objects.commit(new)
    except NotFoundError as error:
        msg = f"commit {new.hex()[:12]} is not complete here: {error}; push what is missing first"
        raise ConflictError(msg) from error
    try:
        return not is_ancestor(objects, old, new)
    except (NotFoundError, IntegrityError):
        return True
