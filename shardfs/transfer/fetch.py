"""Fetch: learn what a remote has, keep its history and metadata here, follow its branches.

Chunks stay where they are until somebody reads them, unless all of it is asked for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shardfs.errors import (
    ConflictError,
    FormatError,
    IntegrityError,
    LockedError,
    NotFoundError,
    ObjectNotFoundError,
    PackCorruptedError,
    PackNotFoundError,
    ReadOnlyError,
    RemoteError,
    RemoteProtocolError,
    ShardfsError,
)
from shardfs.formats.ids import CommitId, Kind, PackId
from shardfs.formats.ref import BRANCHES, TAGS, PackSize, RefMove
from shardfs.formats.tree import FileEntry
from shardfs.history import paths
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.history.walk import ancestors
from shardfs.progress import Progress, no_progress
from shardfs.remotes.base import Remote, RemoteRefs, read_pack_tail
from shardfs.store.index import LOCAL, Index
from shardfs.store.store import Store
from shardfs.transfer import plan
from shardfs.transfer.download import PackSource, download
from shardfs.transfer.filters import Filter
from shardfs.transfer.follow import follow, prune_refs, tracking_name
from shardfs.transfer.learning import TAIL_GUESS, Learner, Remotes, no_other
from shardfs.transfer.reader import Reader

_log = logging.getLogger(__name__)

_SOON_S: Final = 0.5  # that a reader waits for the writer lock; commits of small changes hold it for less
_ROUNDS: Final = 5  # listings of packs; a remote that packs anew meanwhile does so once

Keep = Callable[[Collection[bytes]], list[ShardfsError]]
"""Copies chunks here, by id; gives the errors of those that could not be had."""


@dataclass
class FetchReport:
    """What a fetch did.

    Attributes:
        head: full name of the branch that the remote's HEAD names, if it says.
        refs: branches and tags of the remote that shall be followed, by full name there.
        complete: those of them that are here where they are there: all that they need is known.
        moved: refs here that moved, pruned ones included.
        conflicts: one line for each ref of the remote that could not be followed.
        lost: one error for each pack, object or chunk that the remote is to have and that could not be had: an
            `IntegrityError` where it is damaged.
        is_incomplete: whether some of these refs could not be followed because what they need could not be had.
        packs: packs that were not known before, or not here where all are copied.
        forgotten: packs that the remote has no longer.
        objects: objects that were stored here.
        bytes: bytes that came from remotes.
        kept: chunks that were asked for by place or picked by a filter, and copied here.
        kept_bytes: their stored size.
    """

    head: str | None = None
    refs: dict[str, CommitId] = field(default_factory=dict)
    complete: dict[str, CommitId] = field(default_factory=dict)
    moved: list[RefMove] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    lost: list[ShardfsError] = field(default_factory=list)
    is_incomplete: bool = False
    packs: int = 0
    forgotten: int = 0
    objects: int = 0
    bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0

    @property
    def failure(self) -> ShardfsError | None:
        """What weighs most of all that went wrong: damage, then a remote, then a name; None: nothing did."""
        if self.lost:
            return min(self.lost, key=lambda error: isinstance(error, RemoteError))
        if self.conflicts:
            return (ObjectNotFoundError if self.is_incomplete else ConflictError)("; ".join(self.conflicts))
        return None

    def check_answered(self) -> None:
        """Return if the remote gave all that was asked for, or if what it did not give is damaged.

        Raises:
            RemoteError: else; another attempt may get it.
        """
        if isinstance(self.failure, RemoteError):
            raise self.failure

    def check_followed(self, remote: str, name: str) -> None:
        """Return if a ref of the remote could be followed, or if the remote has no such ref.

        Raises:
            RemoteProtocolError: not all that it needs could be had.
        """
        if name in self.refs and name not in self.complete:
            msg = f"{remote} does not give all of {name}: {'; '.join(self.conflicts)}"
            raise RemoteProtocolError(msg)


class FetchPlan(NamedTuple):
    """What a fetch would do now.

    Attributes:
        moves: refs here that would move, pruned ones included.
        packs: packs that would be learned, or copied.
        bytes: of the requests for them: of packs that are learned their ends, where the tables and most objects are.
        contents: chunks that would be copied by place.
        contents_bytes: their stored size, bases included.
        picks: whether contents that a filter picks would come, too: how many is known when the trees are here.
    """

    moves: list[RefMove]
    packs: int
    bytes: int
    contents: int = 0
    contents_bytes: int = 0
    picks: bool = False


def fetch(  # noqa: PLR0913 - options by keyword
    store: Store,
    remote: Remote,
    *,
    wanted: Filter | None = None,
    prune: bool = False,
    is_mirror: bool = False,
    others: Remotes = no_other,
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> FetchReport:
    """Bring the index, the objects and the remote-tracking branches up to date with a remote.

    May be interrupted anywhere and run again; what is here already is not transferred again.

    Args:
        store: where to.
        remote: where from.
        wanted: which branches are followed, and whether all packs are copied; contents that it picks are not.
        prune: delete remote-tracking branches that are gone at the remote.
        is_mirror: tags here move with those of the remote; with whole packs no ref moves before all it needs is here.
        others: opens other remotes, for what is damaged at this one.
        keep: copies chunks that are known here; takes what is sound out of whole packs that are damaged.
        progress: told the bytes that came and will come.

    Returns:
        What was done; what is damaged at the remote is in it, and keeps back the refs that need it and no others.

    Raises:
        RemoteError, RepositoryNotFoundError: by the remote. Refs of which all came moved, if it gave anything; in a
            mirror (`is_mirror`) the caller asks the report whether it gave all.
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    wanted = wanted or Filter()
    report = FetchReport()
    # Refs before packs: what the refs need is in packs that are listed later, never only in earlier ones.
    published = remote.refs()
    work = _Fetch(store, remote, report, others, progress or no_progress)
    work.run(full=wanted.whole_packs)
    if keep is not None and wanted.whole_packs:
        work.salvage(keep)
    followed = _followed(store, published, wanted)
    report.head, report.refs = published.head, dict(followed.refs)
    if prune:
        report.moved += prune_refs(store, remote.name, followed)
    local = is_mirror and wanted.whole_packs
    for _ in range(2):
        found = follow(store, remote.name, followed, local=local, is_mirror=is_mirror)
        report.moved += found.moved
        report.complete, report.conflicts = found.complete, found.refused + found.held
        report.is_incomplete = bool(found.held)
        if not found.held or not work.mend():
            break
    report.lost = work.errors
    if not is_mirror:
        report.check_answered()
    return report


def plan_fetch(store: Store, remote: Remote, *, wanted: Filter | None = None, prune: bool = False) -> FetchPlan:
    """What `fetch` would do; nothing is changed.

    Raises:
        RemoteError, RepositoryNotFoundError: by the remote.
    """
    wanted = wanted or Filter()
    published = remote.refs()
    moves: dict[str, RefMove] = {}
    for name, commit in published.refs.items():
        target = tracking_name(remote.name, name)
        old = store.refs.get(target)
        is_new = name.startswith(TAGS) and old is None
        if is_new or (name.startswith(BRANCHES) and wanted.follows(name) and old != commit):
            moves[target] = RefMove(target, old, commit)
    if prune:
        stay = {tracking_name(remote.name, name) for name in published.refs if wanted.follows(name)}
        for name, old in store.refs.list(f"refs/remotes/{remote.name}/").items():
            if name not in stay:
                moves[name] = RefMove(name, old, None)
    lacking = _lacking(store.index, remote.name, remote.list_packs(), full=wanted.whole_packs)
    size = sum(pack.size if wanted.whole_packs else min(pack.size, TAIL_GUESS) for pack in lacking)
    picks = bool(moves) and wanted.picks and not wanted.whole_packs
    return FetchPlan(list(moves.values()), len(lacking), size, picks=picks)


def picked(objects: Objects, refs: Mapping[str, CommitId], wanted: Filter) -> set[bytes]:
    """The chunks that a filter picks: of all versions of its branches and tags, or of files of the newest ones.

    Args:
        objects: history.
        refs: by full name at the remote, complete here.
        wanted: the filter.

    Raises:
        NotFoundError, IntegrityError, RemoteError: a tree or manifest cannot be read.
    """
    if wanted.everything:
        return set(plan.closure(objects, refs.values()).chunks)
    tips = [commit for name, commit in refs.items() if name.startswith(BRANCHES)]
    trees = {objects.commit(tip).tree for tip in tips}
    files = {entry: None for tree in trees for path, entry in paths.files(objects, tree) if _takes(wanted, path, entry)}
    return {chunk.id for entry in files for chunk in manifest_of(entry, objects).chunks}


def _takes(wanted: Filter, path: paths.Path, entry: FileEntry) -> bool:
    return wanted.takes(paths.show(path), entry.size)


def learn_packs(store: Store, remote: Remote, deadline_s: float) -> None:
    """Learn where a remote holds chunks now, after it has packed them anew; no ref moves.

    A reader waits for this: after `deadline_s` seconds no further pack is asked for, and nobody waits long for the
    writer lock, which storing the objects of a pack takes when some are not here. The packs that are gone are forgotten
    when all others are known: until then a reader that finds one of them gone learns on.

    Raises:
        RemoteError, RepositoryNotFoundError: by the remote.
    """
    index, place, started = store.index, remote.name, time.monotonic()
    learner = Learner(store, remote, no_other, lambda _: None)
    known, listed = index.packs(place), {pack.id: pack for pack in remote.list_packs()}
    complete = True
    for pack in (listed[id_] for id_ in listed.keys() - known.keys()):
        if time.monotonic() - started > deadline_s:
            return
        try:
            entries = index.entries(pack.id) or read_pack_tail(remote, pack, TAIL_GUESS).entries
        except PackNotFoundError:
            continue
        except RemoteProtocolError as error:
            _log.warning("%s", error)
            complete = False
        else:
            objects = {entry.id for entry in entries if entry.kind is not Kind.CHUNK}
            if index.has(objects, local=True) == objects:
                index.add_packs([(pack.id, pack.size, entries)], place=place)
            else:
                complete &= _learn_soon(store, learner, pack)
    if complete:
        index.remove_packs(known.keys() - listed.keys(), place=place)


def learn_tables(store: Store, remote: Remote) -> None:
    """Learn what is in all packs of a remote now; no ref moves. For those that cannot say which ids they have.

    Raises:
        RemoteError, RepositoryNotFoundError: by the remote.
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    _Fetch(store, remote, FetchReport(), no_other, no_progress).run(full=False)


def _learn_soon(store: Store, learner: Learner, pack: PackSize) -> bool:
    """Learn one pack with its objects; False when another process holds the lock, or nobody may write here."""
    try:
        with store.lock.hold("fetch", wait_s=_SOON_S):
            return all(
                one.entries is not None or isinstance(one.error, PackNotFoundError) for one in learner.learn([pack])
            )
    except (LockedError, ReadOnlyError):
        return False


def _followed(store: Store, published: RemoteRefs, wanted: Filter) -> RemoteRefs:
    """The refs that a filter leaves: its branches, and the tags in their history."""
    if not wanted.branches:
        return published
    refs = {name: commit for name, commit in published.refs.items() if name.startswith(BRANCHES)}
    refs = {name: commit for name, commit in refs.items() if wanted.follows(name)}
    history: set[CommitId] = set()
    with suppress(NotFoundError, IntegrityError, FormatError):  # what is not complete is not followed either
        history.update(id_ for id_, _ in ancestors(Objects(Reader(store, budget_bytes=0)), refs.values()))
    refs |= {name: commit for name, commit in published.refs.items() if name.startswith(TAGS) and commit in history}
    return published._replace(refs=refs)


def _lacking(index: Index, place: str, listed: Collection[PackSize], *, full: bool) -> list[PackSize]:
    """The packs of a remote that must be learned or, with `full`, copied."""
    known, here = index.packs(place), index.packs(LOCAL)
    if not full:
        return [pack for pack in listed if pack.id not in known and not _is_learned(index, pack.id)]
    return [pack for pack in listed if pack.id not in here and not _is_held(index, pack.id)]


def _is_learned(index: Index, pack_id: PackId) -> bool:
    """Whether the table of a pack is known, from here or from another remote, and its objects are here."""
    entries = index.entries(pack_id)
    objects = {entry.id for entry in entries if entry.kind is not Kind.CHUNK}
    return bool(entries) and index.has(objects, local=True) == objects


def _is_held(index: Index, pack_id: PackId) -> bool:
    """Whether everything in a known pack of the remote is here, in other packs."""
    ids = {entry.id for entry in index.entries(pack_id)}
    return bool(ids) and index.has(ids, local=True) == ids


class _Fetch:
    def __init__(self, store: Store, remote: Remote, report: FetchReport, others: Remotes, progress: Progress) -> None:
        self._store = store
        self._remote = remote
        self._report = report
        self._others = others
        self._progress = progress
        self._total = 0
        self._lost: dict[PackId, ShardfsError] = {}
        self._chunks: list[ShardfsError] = []
        self._guard = threading.Lock()

    @property
    def errors(self) -> list[ShardfsError]:
        """Of all that could not be had."""
        return [*map(self._told, self._lost, self._lost.values()), *self._chunks]

    def _told(self, pack: PackId, error: ShardfsError) -> ShardfsError:
        if not isinstance(error, PackNotFoundError):
            return error
        return PackCorruptedError(f"pack {pack.hex()[:12]} is listed at {self._remote.url} and is not there")

    def run(self, *, full: bool) -> None:
        """Learn or copy all packs; those that disappear meanwhile because they are packed anew are looked for again."""
        index, place = self._store.index, self._remote.name
        listed: dict[PackId, PackSize] = {}
        for _ in range(_ROUNDS):
            listed = {pack.id: pack for pack in self._remote.list_packs()}
            lacking = _lacking(index, place, listed.values(), full=full)
            todo = {pack.id for pack in lacking}
            new = listed.keys() - index.packs(place).keys() - todo
            there = [listed[id_] for id_ in new if index.entries(id_)]
            index.add_packs(((pack.id, pack.size, ()) for pack in there), place=place)
            lacking = [
                pack for pack in lacking if not isinstance(self._lost.get(pack.id), RemoteError | IntegrityError)
            ]
            if not (self._copy(lacking) if full else self._learn(lacking)):
                break
        self._lost = {id_: error for id_, error in self._lost.items() if id_ in listed}
        gone = index.packs(place).keys() - listed.keys()
        index.remove_packs(gone, place=place)
        self._report.forgotten = len(gone)

    def salvage(self, keep: Keep) -> None:
        """Copy the sound chunks of packs that are damaged, as far as their tables are not."""
        damaged = [id_ for id_, error in self._lost.items() if isinstance(error, PackCorruptedError)]
        tables = {id_: entries for id_ in damaged if (entries := self._store.index.entries(id_))}
        for id_ in tables:
            del self._lost[id_]
        if tables:
            self._chunks += keep([e.id for entries in tables.values() for e in entries if e.kind is Kind.CHUNK])

    def mend(self) -> bool:
        """Ask again for objects that came damaged, now or in an earlier fetch; whether there are any."""
        index = self._store.index
        packs = index.packs(self._remote.name).items()
        lacking = [PackSize(id_, size) for id_, size in packs if not _is_learned(index, id_)]
        self._learn(lacking)
        return bool(lacking)

    def _copy(self, packs: list[PackSize]) -> int:
        """Copy whole packs, and learn those that are damaged; returns how many are gone at the remote."""
        self._total = self._report.bytes + sum(pack.size for pack in packs)
        damaged: list[PackSize] = []
        for pack, error in download(self._store, packs, self._sources, self._arrived):
            if error is None:
                self._store.index.add_packs([(pack.id, pack.size, ())], place=self._remote.name)
            elif isinstance(error, IntegrityError):
                damaged.append(pack)
            self._note(pack, error)
            self._report.packs += error is None
        copied = {pack.id: self._lost[pack.id] for pack in damaged}
        self._learn(damaged)
        self._lost = copied | self._lost  # that a table is sound does not mend the pack
        return sum(isinstance(self._lost.get(pack.id), PackNotFoundError) for pack in packs)

    def _note(self, pack: PackSize, error: ShardfsError | None) -> None:
        self._lost.pop(pack.id, None)
        if error is not None:
            self._lost[pack.id] = error

    def _sources(self, pack_id: PackId) -> list[PackSource]:
        """Who has a pack: the remote, then others that are known to."""
        found: list[PackSource] = [self._remote]
        for name in self._store.index.places(pack_id):
            if name not in (LOCAL, self._remote.name):
                with suppress(NotFoundError):
                    found.append(self._others(name))
        return found

    def _learn(self, packs: list[PackSize]) -> int:
        """Learn tables and objects; returns how many packs are gone at the remote."""
        self._total = self._report.bytes + sum(min(pack.size, TAIL_GUESS) for pack in packs)
        known = self._store.index.packs(self._remote.name)
        for one in Learner(self._store, self._remote, self._others, self._arrived).learn(packs):
            self._report.packs += one.entries is not None and one.pack.id not in known
            self._report.objects += len(one.payloads)
            self._note(one.pack, one.error)
        return sum(isinstance(self._lost.get(pack.id), PackNotFoundError) for pack in packs)

    def _arrived(self, count: int) -> None:
        with self._guard:
            self._report.bytes += count
            done = self._report.bytes
        self._progress(done, max(self._total, done), "receiving")
