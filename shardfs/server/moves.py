"""Whether a move of a ref takes something away."""

from __future__ import annotations

from shardfs.errors import IntegrityError, NotFoundError
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

    Where the history cannot be read, it does; but a commit that is not here is a move that fails for itself.
    """
    if old == new:
        return False
    if not name.startswith(BRANCHES):
        return True
    objects = Objects(_Local(store))
    try:
        objects.commit(new)
    except NotFoundError:
        return False
    try:
        return not is_ancestor(objects, old, new)
    except (NotFoundError, IntegrityError):
        return True
