"""Pull: fetch, then move a branch forward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from shardfs.errors import NotFastForwardError, RefNotFoundError
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES, REMOTES
from shardfs.history.objects import Objects
from shardfs.history.walk import is_ancestor
from shardfs.store.store import Store

BeforeMove = Callable[[CommitId | None, CommitId], None]


@dataclass(frozen=True, slots=True)
class PullReport:
    """Where a branch was and is; equal when there was nothing new."""

    branch: str
    old: CommitId | None
    new: CommitId | None


def fast_forward(
    store: Store, objects: Objects, remote: str, branch: str, *, author: str, before_move: BeforeMove
) -> PullReport:
    """Move `branch` to where its remote-tracking branch is.

    Args:
        store: the repository's store, after a fetch.
        objects: its objects.
        remote: name of the remote.
        branch: short name.
        author: for the reflog.
        before_move: called with old and new commit when the branch will move; may raise to stop it.

    Raises:
        RefNotFoundError: the remote has no such branch.
        NotFastForwardError: both have commits that the other lacks; nothing was moved.
    """
    name = BRANCHES + branch
    new = store.refs.get(f"{REMOTES}{remote}/{branch}")
    if new is None:
        msg = f"{remote} has no branch {branch!r}"
        raise RefNotFoundError(msg)
    with store.lock.hold("pull"):
        old = store.refs.get(name)
        if old is not None and is_ancestor(objects, new, old):
            return PullReport(branch, old, old)
        if old is not None and not is_ancestor(objects, old, new):
            msg = (
                f"{branch} and {remote}/{branch} have both moved on; docs/how-to/push.md puts one on top of the other, "
                f"or push yours under another name with `shardfs branch NAME && shardfs push {remote} NAME`"
            )
            raise NotFastForwardError(msg)
        before_move(old, new)
        store.refs.move(name, old, new, author=author, message=f"pull: {remote}")
    return PullReport(branch, old, new)
