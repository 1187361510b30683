"""What stays in the cache because a user wants it, and what goes because a user wants that."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from shardfs.errors import ConflictError, RefNotFoundError, UsageError
from shardfs.formats.ids import CommitId, Kind
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.progress import Progress
from shardfs.store.atomic import os_errors
from shardfs.store.cache import Cache
from shardfs.store.index import Index
from shardfs.store.pins import Pin
from shardfs.transfer.tier import content_of
from shardfs.transfer.warming import Files, Warmer, WarmReport


@dataclass(frozen=True, slots=True)
class PinState:
    """A pin and how much of it is here.

    Attributes:
        pin: what is pinned.
        here: bytes of its files that are plain files in the cache.
        is_gone: whether its repository is on this machine no more.
    """

    pin: Pin
    here: int
    is_gone: bool


def states(cache: Cache) -> list[PinState]:
    """All pins of this user, of all repositories.

    Raises:
        StoreError: they cannot be read.
    """
    whole = {row.id for row in cache.files.rows() if not row.writer}
    return [PinState(pin, _here(pin, whole), _is_gone(pin.repository)) for pin in _all(cache)]


def references(cache: Cache, index: Index, repository: str) -> list[tuple[Kind, bytes]]:
    """What the pins of a repository need from its store, for garbage collection, as far as it is there.

    Raises:
        StoreError: pins cannot be read.
    """
    commits = {found.commit for found in _all(cache) if found.repository == repository}
    return [(Kind.COMMIT, id_) for id_ in index.has(commits)]


class Wish(NamedTuple):
    """Files of a revision that are to be pinned."""

    repository: str
    revision: str
    path: str
    commit: CommitId
    files: Files

    @property
    def pin(self) -> Pin:
        """The pin that keeps them."""
        sizes = {id_: entry.size for _, entry in self.files if (id_ := content_of(entry)) is not None}
        return Pin(self.repository, self.revision, self.path, self.commit, sizes)


def pin(cache: Cache, warmer: Warmer, wish: Wish, progress: Progress) -> WarmReport:
    """Pin files and bring them here.

    Raises:
        UsageError: plain files are switched off. OutOfSpaceError: they do not fit; nothing was pinned or fetched.
            Errors of `Warmer.warm`: a new pin is taken back, and what came stays until room is needed.
    """
    if not warmer.makes_files:
        msg = "cache.files is false, and a pin keeps plain files; `shardfs config set cache.files true`"
        raise UsageError(msg)
    new = wish.pin
    warmer.check_fits(new.files, new.name)
    is_new = all((known.repository, known.name) != (new.repository, new.name) for known in _all(cache))
    with os_errors(f"cannot pin {new.name}"):
        cache.pins.add(new)
    try:
        return warmer.warm(wish.files, progress)
    except BaseException:
        if is_new:
            cache.pins.remove(new)
        raise


def unpin(
    cache: Cache, repository: str, revision: str | None, path: str, resolve: Callable[[str], CommitId]
) -> list[Pin]:
    """Take back the pin of a path of a revision, or all of a repository (None); returns them.

    A revision is found as it was written when it was pinned, or else by the commit that it names now.

    Raises:
        RefNotFoundError: no such pin. RevisionNotFoundError: no such revision either.
    """
    gone = own = [known for known in _all(cache) if known.repository == repository]
    if revision is not None:
        gone = [known for known in own if (known.revision, known.path) == (revision, path)]
        if not gone:
            commit = resolve(revision)
            gone = [known for known in own if (known.commit, known.path) == (commit, path)]
        if not gone:
            msg = f"{revision}{':' * bool(path)}{path} is not pinned; `shardfs pin` lists what is"
            raise RefNotFoundError(msg)
    with os_errors("cannot unpin"):
        for found in gone:
            cache.pins.remove(found)
    return gone


def evict(cache: Cache, objects: Objects, files: Files, *, force: bool) -> int:
    """Remove the plain files of contents and what the cache has of their chunks; returns the bytes that this freed.

    Raises:
        ConflictError: some are pinned and `force` is not set; nothing was removed. With it, their pins go too.
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: a manifest cannot be read.
    """
    ids = {id_ for _, entry in files if (id_ := content_of(entry)) is not None}
    _release(cache, ids, force=force)
    chunks = {chunk.id for _, entry in files for chunk in manifest_of(entry, objects).chunks}
    return cache.files.evict(ids) + cache.evict(chunks)


def evict_all(cache: Cache, *, force: bool) -> int:
    """Empty the cache of this user; what is pinned stays unless `force` is set. Returns the bytes that this freed."""
    if force:
        _release(cache, {id_ for p in _all(cache) for id_ in p.files}, force=True)
    return cache.clear()


def _release(cache: Cache, ids: Collection[bytes], *, force: bool) -> None:
    """Take back the pins that keep some contents."""
    keeping = [p for p in _all(cache) if not p.files.keys().isdisjoint(ids)]
    if keeping and not force:
        names = ", ".join(p.name for p in keeping[:3])
        msg = f"pinned by {names}: `shardfs unpin` first, or --force to take the pin back too"
        raise ConflictError(msg)
    with os_errors("cannot unpin"):
        for found in keeping:
            cache.pins.remove(found)


def _all(cache: Cache) -> list[Pin]:
    with os_errors("pins cannot be read"):
        return cache.pins.all()


def _here(found: Pin, whole: Iterable[bytes]) -> int:
    return sum(found.files[id_] for id_ in found.files.keys() & set(whole))


def _is_gone(repository: str) -> bool:
    return "://" not in repository and not Path(repository).exists()
