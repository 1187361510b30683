"""A remote beside what is here: does it answer, where are its branches, how many bytes does it hold."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import NamedTuple

from shardfs.errors import FormatError, IntegrityError, NotFoundError, RemoteError
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES
from shardfs.history.objects import Objects
from shardfs.remotes.base import Remote
from shardfs.store.closure import new_commits
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.transfer.follow import tracking_name


class BranchState(NamedTuple):
    """A branch of a remote.

    Attributes:
        name: short name.
        there: its commit at the remote; None when it is gone there.
        here: the commit of the branch of that name here, or None.
        ahead: commits here that the remote's branch lacks; None when it cannot be told before a fetch.
        behind: commits of the remote's branch that the one here lacks; None as for `ahead`.
        is_known: whether the last fetch saw it where it is.
    """

    name: str
    there: CommitId | None
    here: CommitId | None
    ahead: int | None
    behind: int | None
    is_known: bool


class RemoteState(NamedTuple):
    """A remote now.

    Attributes:
        name: of the remote.
        url: where it is, without credentials.
        problem: why it cannot be used; None when it answered.
        seconds: that its first answer took.
        head: full name of the branch that it names as its HEAD.
        branches: its branches, and those that were there at the last fetch.
        tags: how many it has.
        packs: how many it has.
        bytes: of them.
        unknown_packs: of them those that the next fetch learns.
        here_bytes: of the packs that are also whole in this store.
    """

    name: str
    url: str
    problem: str | None
    seconds: float = 0.0
    head: str | None = None
    branches: tuple[BranchState, ...] = ()
    tags: int = 0
    packs: int = 0
    bytes: int = 0
    unknown_packs: int = 0
    here_bytes: int = 0


def survey(store: Store, objects: Objects, remote: Remote) -> RemoteState:
    """Ask a remote for its listings; nothing is changed here. One that fails is an answer, not an error."""
    begin = time.monotonic()
    try:
        published = remote.refs()
        seconds = time.monotonic() - begin
        listed = {pack.id: pack.size for pack in remote.list_packs()}
    except (RemoteError, NotFoundError) as error:
        return RemoteState(remote.name, remote.url, str(error))
    there = {name: commit for name, commit in published.refs.items() if name.startswith(BRANCHES)}
    prefix = tracking_name(remote.name, BRANCHES)
    followed = {BRANCHES + name.removeprefix(prefix) for name in store.refs.names(prefix)}
    here = store.index.packs(LOCAL)
    return RemoteState(
        remote.name,
        remote.url,
        None,
        seconds,
        published.head,
        tuple(_branch(store, objects, remote.name, name, there.get(name)) for name in sorted(there.keys() | followed)),
        len(published.refs) - len(there),
        len(listed),
        sum(listed.values()),
        len(listed.keys() - store.index.packs(remote.name).keys()),
        sum(size for id_, size in listed.items() if id_ in here),
    )


def _branch(store: Store, objects: Objects, remote: str, name: str, there: CommitId | None) -> BranchState:
    here, known = store.refs.get(name), store.refs.get(tracking_name(remote, name))
    ahead = behind = None
    if here is not None and there is not None:
        with suppress(NotFoundError, IntegrityError, FormatError, RemoteError):
            ahead = len(new_commits(objects.commit, [here], [there]))
            behind = len(new_commits(objects.commit, [there], [here]))
    return BranchState(name.removeprefix(BRANCHES), there, here, ahead, behind, there == known)
