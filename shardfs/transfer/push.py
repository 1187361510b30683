"""Push: send what a remote lacks, then move its refs. What was sent stays: a second try sends only the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from shardfs.errors import (
    ConflictError,
    IntegrityError,
    NotFastForwardError,
    RefChangedError,
    RefNotFoundError,
    RepositoryNotFoundError,
    UsageError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES, TAGS, RefMove
from shardfs.history.objects import Objects
from shardfs.history.revisions import short
from shardfs.history.walk import is_ancestor
from shardfs.progress import Progress, no_progress
from shardfs.remotes.base import Remote, RemoteRefs
from shardfs.store.closure import new_commits
from shardfs.store.packs import FinishedPack
from shardfs.store.refs import RefStore
from shardfs.store.store import Store
from shardfs.transfer import basing, fetch, plan, sending, shipment
from shardfs.transfer.follow import tracking_name
from shardfs.transfer.reader import Reader
from shardfs.transfer.shipment import Shipment

_HAS_BATCH: Final = 16_384  # ids per question to the remote, 512 KiB


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """One ref to move at a remote.

    Attributes:
        name: full name of a branch or tag.
        new: the commit that it shall name; None deletes it.
        expected_old: where the caller believes it is; None when the caller does not know. A ref that is elsewhere
            is not moved unless the push is forced.
    """

    name: str
    new: CommitId | None
    expected_old: CommitId | None = None


class Rejected(NamedTuple):
    """A move that a push would be refused: full name of the ref, where it is, where it should go, and why not."""

    name: str
    old: CommitId | None
    new: CommitId | None
    reason: str


@dataclass
class PushReport:
    """What a push did, or would do.

    Attributes:
        remote: name of the remote.
        url: where it is, without credentials.
        dry_run: nothing was sent and no ref moved; all else says what would be.
        moved: refs that moved at the remote.
        rejected: refs that may not move, because of which a push would do nothing at all; only of a dry run.
        up_to_date: full names of refs that were right already.
        packs: packs that were sent.
        objects: objects and chunks in them.
        chunks: chunks in them.
        bytes: bytes of them. HTTP heads are not counted, and parts that a broken upload left there are.
        encoded: chunks that are encoded anew, because the remote needs them without their bases. A dry run counts
            each as it would be uncompressed: the most that it can be. All other bytes are exact.
    """

    remote: str
    url: str
    dry_run: bool = False
    moved: list[RefMove] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    up_to_date: list[str] = field(default_factory=list)
    packs: int = 0
    objects: int = 0
    chunks: int = 0
    bytes: int = 0
    encoded: int = 0


def plan_updates(refs: RefStore, remote: str, names: Sequence[str], *, tags: bool = False) -> list[RefUpdate]:
    """The updates that push branches or tags under their own names.

    Args:
        refs: refs here.
        remote: name of the remote.
        names: short or full names of branches and tags, or patterns of them with `*`, `?` and `[...]`; ":name"
            deletes one at the remote.
        tags: add all tags.

    Raises:
        RefNotFoundError: no such branch or tag. UsageError: not a name.
    """
    full: dict[str, bool] = {}  # whether each is deleted
    for name in names:
        if any(c in name for c in "*?[") and not name.startswith(":"):
            full |= dict.fromkeys(_matching(refs, name), False)
        else:
            full[_full_name(refs, name.removeprefix(":"))] = name.startswith(":")
    if tags:
        full |= dict.fromkeys(refs.list(TAGS), False)
    updates = []
    for name, delete in full.items():
        new = None if delete else refs.get(name)
        if new is None and not delete:
            msg = f"there is no branch or tag {name.split('/', 2)[2]!r} to push"
            raise RefNotFoundError(msg)
        followed = tracking_name(remote, name) if delete and name.startswith(BRANCHES) else None
        updates.append(RefUpdate(name, new, None if followed is None else refs.get(followed)))
    return updates


def push(  # noqa: PLR0913 - options by keyword
    store: Store,
    reader: Reader,
    objects: Objects,
    remote: Remote,
    updates: Sequence[RefUpdate],
    *,
    force: bool = False,
    prune: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> PushReport:
    """Make refs of a remote name commits of this store, after sending all that those need.

    Args:
        store: what is pushed; its remote-tracking branches follow.
        reader: gives chunks that are only at another remote.
        objects: reads history.
        remote: where to.
        updates: the refs to move.
        force: also move branches to commits that do not contain the old ones, and move tags.
        prune: also delete all branches and tags of the remote that are not in `updates`.
        dry_run: only tell what would be done; asks the remote, sends nothing.
        progress: told the bytes sent and to send.

    Raises:
        NotFastForwardError: a ref would lose commits; nothing was sent.
        RefChangedError: somebody else moved a ref meanwhile.
        NotFoundError, IntegrityError: something that a commit needs is missing here or damaged; no ref was moved.
        RemoteError: run the same push again, it sends only what is still missing.
        OutOfSpaceError, ReadOnlyError, StoreError: by the disk here.
    """
    published = _published(remote)
    report = PushReport(remote.name, remote.url, dry_run)
    gone = published.refs.keys() - {update.name for update in updates} if prune else set()
    asked = [*updates, *(RefUpdate(name, None) for name in sorted(gone))]
    moves = _judge(store, objects, published, asked, report, force=force)
    wanted = [move.new for move in moves if move.new is not None]
    load = _plan_shipment(store, objects, remote, published, wanted) if wanted else Shipment()
    report.encoded, report.chunks, report.objects = load.encoded, load.chunks, load.payloads
    if dry_run:
        report.moved, report.packs, report.bytes = moves, len(load.parcels), load.bytes
        return report

    def arrived(pack: FinishedPack) -> None:
        report.packs += 1
        report.bytes += pack.size

    if load.parcels:
        sending.send(store, reader, remote, load, progress or no_progress, arrived)
    try:
        for move in moves:
            _move(remote, move)
            report.moved.append(move)
    finally:
        _follow(store, remote.name, report)
    return report


def _judge(
    store: Store,
    objects: Objects,
    published: RemoteRefs,
    updates: Sequence[RefUpdate],
    report: PushReport,
    *,
    force: bool,
) -> list[RefMove]:
    """The moves that updates ask for. What moves nothing, or in a dry run may not, is in the report."""
    moves: list[RefMove] = []
    for update in updates:
        if published.refs.get(update.name) == update.new:
            report.up_to_date.append(update.name)
            continue
        try:
            moves.append(_check(store, objects, published, update, force=force))
        except (NotFastForwardError, RefChangedError) as error:
            if not report.dry_run:
                raise
            report.rejected.append(Rejected(update.name, published.refs.get(update.name), update.new, str(error)))
    return moves


def _plan_shipment(
    store: Store, objects: Objects, remote: Remote, published: RemoteRefs, wanted: Sequence[CommitId]
) -> Shipment:
    """What the remote lacks of some commits. What its refs name it has, so that nobody asks for that."""
    index = store.index
    known = [CommitId(c) for c in index.has(published.refs.values(), local=True)]
    items = list(plan.reachable(objects, new_commits(objects.commit, wanted, known), changes=True))
    lacks = _questions(store, remote)
    lacking = set(lacks([id_ for _, id_ in items]))
    missing = basing.find_all(index, (item for item in items if item[1] in lacking))
    found, alone = basing.with_bases(index, missing, lacks)
    return shipment.plan(index, found, alone | basing.too_deep(index, found, remote.name, alone))


def _questions(store: Store, remote: Remote) -> Callable[[Sequence[bytes]], list[bytes]]:
    """Tells which of some ids the remote lacks: it says so itself, or the tables of its packs do."""
    if not remote.knows_ids:
        try:
            fetch.learn_tables(store, remote)
        except RepositoryNotFoundError:  # it holds nothing, whatever the index remembers
            return list

        def look_up(ids: Sequence[bytes]) -> list[bytes]:
            there = store.index.has(ids, place=remote.name)
            return [id_ for id_ in ids if id_ not in there]

        return look_up

    def ask(ids: Sequence[bytes]) -> list[bytes]:
        lacking: list[bytes] = []
        for start in range(0, len(ids), _HAS_BATCH):
            part = ids[start : start + _HAS_BATCH]
            try:
                answers = remote.has(part)
            except RepositoryNotFoundError:
                return list(ids)
            lacking += [id_ for id_, there in zip(part, answers, strict=True) if not there]
        return lacking

    return ask


def _move(remote: Remote, move: RefMove) -> None:
    try:
        remote.update_ref(move.name, move.old, move.new)
    except RefChangedError as error:
        msg = f"{error} meanwhile; what was sent stays there: `shardfs pull {remote.name}`, then push again"
        raise RefChangedError(msg, error.current) from error


def _check(store: Store, objects: Objects, published: RemoteRefs, update: RefUpdate, *, force: bool) -> RefMove:
    """The move that an update asks for."""
    name, new = update.name, update.new
    if not ref_format.is_ref_name(name) or not name.startswith((BRANCHES, TAGS)):
        msg = f"only branches and tags can be pushed, not {name!r}"
        raise UsageError(msg)
    current = published.refs.get(name)
    if current is not None and not force:
        if update.expected_old not in (None, current):
            msg = f"{name} is at {short(current)} by now; fetch first"
            raise RefChangedError(msg, current)
        if new is not None:
            _check_forward(store, objects, name, current, new)
    return RefMove(name, current, new)


def _check_forward(store: Store, objects: Objects, name: str, current: CommitId, new: CommitId) -> None:
    if name.startswith(TAGS):
        msg = f"{name} is at {short(current)} already; tags move only by force"
        raise NotFastForwardError(msg)
    if not store.index.has([current]):
        msg = f"{name} is at {short(current)}, which is not known here; `shardfs pull` first"
        raise NotFastForwardError(msg)
    if not is_ancestor(objects, current, new):
        msg = f"{name} is at {short(current)}, which {short(new)} does not contain; `shardfs pull` first, or force"
        raise NotFastForwardError(msg)


def _published(remote: Remote) -> RemoteRefs:
    try:
        return remote.refs()
    except RepositoryNotFoundError:
        return RemoteRefs(None, {})


def _follow(store: Store, remote: str, report: PushReport) -> None:
    """Move the remote-tracking branches to where the remote's branches are now."""
    for move in report.moved:
        if move.name.startswith(BRANCHES):
            name = tracking_name(remote, move.name)
            # The push is done; a tracking branch that cannot follow is right after the next fetch.
            with suppress(ConflictError, IntegrityError), store.lock.hold("push"):
                store.refs.move(name, store.refs.get(name), move.new, message="push")


def _matching(refs: RefStore, pattern: str) -> list[str]:
    """Full names of the branches that a pattern matches, or of the tags when no branch does."""
    for prefix in (BRANCHES, TAGS):
        found = [name for name in sorted(refs.list(prefix)) if fnmatchcase(name, prefix + pattern)]
        if found:
            return found
    msg = f"there is no branch or tag like {pattern!r} to push"
    raise RefNotFoundError(msg)


def _full_name(refs: RefStore, name: str) -> str:
    if name.startswith((BRANCHES, TAGS)):
        return ref_format.check_ref_name(name)
    branch, tag = BRANCHES + name, TAGS + name
    if not ref_format.is_ref_name(branch):
        msg = f"not the name of a branch or tag: {name!r}"
        raise UsageError(msg)
    return tag if refs.get(branch) is None and refs.get(tag) is not None else branch
