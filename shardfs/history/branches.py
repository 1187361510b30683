"""Branches and tags: list, create, delete."""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol

from shardfs.errors import AlreadyExistsError, NotFastForwardError, RefChangedError, RefNotFoundError, UsageError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES, Head
from shardfs.history.objects import Objects
from shardfs.history.walk import ancestors


class Refs(Protocol):
    """The refs of a store, as far as branches need them."""

    def get(self, name: str) -> CommitId | None:
        """The commit that a ref names."""
        ...

    def list(self, prefix: str = ...) -> dict[str, CommitId]:
        """Refs by full name."""
        ...

    def head(self) -> Head:
        """What HEAD names."""
        ...

    def move(
        self, name: str, old: CommitId | None, new: CommitId | None, *, author: str = ..., message: str = ...
    ) -> None:
        """Compare-and-swap."""
        ...


def listing(refs: Refs, prefix: str) -> dict[str, CommitId]:
    """Refs below a prefix by the rest of their names, sorted."""
    return {name.removeprefix(prefix): commit for name, commit in refs.list(prefix).items()}


def create(refs: Refs, prefix: str, short: str, commit: CommitId, author: str, *, force: bool = False) -> CommitId:
    """Make a branch or tag; returns its commit.

    Raises:
        UsageError: not a name. AlreadyExistsError: taken, and `force` is not set.
    """
    name = ref_format.full_name(prefix, short)
    old = refs.get(name)
    if old is not None and not force:
        msg = f"{short} exists already"
        raise AlreadyExistsError(msg)
    refs.move(name, old, commit, author=author, message="create")
    return commit


def delete(refs: Refs, prefix: str, short: str, author: str) -> CommitId:
    """Delete a branch or tag; returns where it was.

    Raises:
        RefNotFoundError: no such name.
    """
    name = prefix + short
    old = refs.get(name) if ref_format.is_ref_name(name) else None
    if old is None:
        msg = f"no {'branch' if prefix == BRANCHES else 'tag'} {short!r}"
        raise RefNotFoundError(msg)
    refs.move(name, old, None, author=author, message="delete")
    return old


def delete_branch(refs: Refs, objects: Objects, short: str, *, force: bool, author: str) -> CommitId:
    """Delete a branch that is not current; returns where it was.

    Raises:
        RefNotFoundError: no such branch. UsageError: it is current. NotFastForwardError: its commits are on no other
            branch, tag or remote branch, and `force` is not set.
    """
    name = BRANCHES + short
    if refs.head().branch == name:
        msg = f"{short} is the current branch; switch to another one first"
        raise UsageError(msg)
    tip = refs.get(name) if ref_format.is_ref_name(name) else None
    if tip is not None and not force:
        others = [commit for other, commit in refs.list().items() if other != name]
        if all(id_ != tip for id_, _ in ancestors(objects, others)):
            msg = f"{short} has commits that are on no other branch; delete it with force if you want to lose them"
            raise NotFastForwardError(msg)
    return delete(refs, BRANCHES, short, author)


def delete_all(refs: Refs, prefix: str) -> None:
    """Delete all refs below a prefix."""
    for name, commit in refs.list(prefix).items():
        with suppress(RefChangedError):
            refs.move(name, commit, None, message="delete")
