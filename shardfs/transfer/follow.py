"""Remote-tracking branches: refs here that say where a remote's branches were at the last fetch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from shardfs.errors import (
    AlreadyExistsError,
    FormatError,
    IntegrityError,
    NotFoundError,
    ObjectNotFoundError,
    RefCorruptedError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES, REMOTES, TAGS, RefMove
from shardfs.history.objects import Objects
from shardfs.remotes.base import RemoteRefs
from shardfs.store.closure import new_commits
from shardfs.store.store import Store
from shardfs.transfer import plan
from shardfs.transfer.reader import Reader


def tracking_name(remote: str, name: str) -> str:
    """The local ref that follows a remote's branch; a tag keeps its name."""
    return name if name.startswith(TAGS) else f"{REMOTES}{remote}/{name.removeprefix(BRANCHES)}"


@dataclass
class Followed:
    """What became of a remote's refs here.

    Attributes:
        moved: refs here that moved.
        complete: commits by full name at the remote, of those that are where they are there.
        refused: one line for each that cannot be followed, whatever is known.
        held: one line for each that needs what is not known, or not here.
    """

    moved: list[RefMove] = field(default_factory=list)
    complete: dict[str, CommitId] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


def follow(
    store: Store, remote: str, published: RemoteRefs, *, local: bool = False, is_mirror: bool = False
) -> Followed:
    """Move remote-tracking branches to where the remote's branches are, and create tags that are not here.

    A ref moves only if everything that it needs is known, or with `local` here. In a mirror tags move, too.

    Raises:
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    found = Followed()
    with store.lock.hold("fetch"):
        wanted: dict[str, RefMove] = {}
        for name, commit in published.refs.items():
            target = tracking_name(remote, name)
            if not name.startswith((BRANCHES, TAGS)) or not ref_format.is_ref_name(target):
                found.refused.append(f"{name} has a name that cannot be followed")
                continue
            old = _current(store, target)
            if old == commit:
                found.complete[name] = commit
            elif name.startswith(TAGS) and old is not None and not is_mirror:
                found.refused.append(f"{name} names another commit here")
            else:
                wanted[name] = RefMove(target, old, commit)
        holes = _holes(store, {published.refs[name] for name in wanted}, local=local)
        for name, move in wanted.items():
            commit = published.refs[name]
            if commit in holes:
                found.held.append(f"{move.name} is not complete at {remote}: {holes[commit]}")
                continue
            try:
                store.refs.move(move.name, move.old, commit, message="fetch")
            except AlreadyExistsError as error:
                found.refused.append(f"{error}; fetch with prune")
            else:
                found.moved.append(move)
                found.complete[name] = commit
    return found


def prune_refs(store: Store, remote: str, published: RemoteRefs) -> list[RefMove]:
    """Delete remote-tracking branches that are gone at the remote; returns them. Errors as `follow`."""
    gone: list[RefMove] = []
    stay = {tracking_name(remote, name) for name in published.refs}
    with store.lock.hold("fetch"):
        for name in store.refs.names(f"{REMOTES}{remote}/"):
            if name not in stay:
                old = _current(store, name)
                with suppress(RefCorruptedError):
                    store.refs.move(name, old, None, message="prune")
                    gone.append(RefMove(name, old, None))
    return gone


def _current(store: Store, name: str) -> CommitId | None:
    try:
        return store.refs.get(name)
    except RefCorruptedError:
        return store.refs.restore(name)


def _holes(store: Store, tips: set[CommitId], *, local: bool) -> dict[CommitId, str]:
    """Those of some commits that need something which is in no known pack (`local`: here), with what is missing."""
    objects = Objects(Reader(store, budget_bytes=0))
    names = store.refs.names()
    refs = {commit for name in names if (commit := _readable_ref(store, name)) is not None}
    known = plan.readable(objects, refs)
    try:
        _check(store, objects, tips, known, local=local)
    except (NotFoundError, IntegrityError, FormatError):
        found: dict[CommitId, str] = {}
        for tip in tips:
            try:
                _check(store, objects, [tip], known, local=local)
            except (NotFoundError, IntegrityError, FormatError) as error:
                found[tip] = str(error)
        return found
    return {}


def _check(store: Store, objects: Objects, tips: Iterable[CommitId], known: list[CommitId], *, local: bool) -> None:
    needed = plan.reachable(objects, new_commits(objects.commit, tips, known))
    missing = needed.chunks.keys() - store.index.has(needed.chunks, local=local)
    if missing:
        where = "not here" if local else "in no known pack"
        msg = f"{len(missing)} chunks are {where}, the first is {min(missing).hex()[:12]}"
        raise ObjectNotFoundError(msg)


def _readable_ref(store: Store, name: str) -> CommitId | None:
    with suppress(RefCorruptedError):
        return store.refs.get(name)
    return None
