"""Push: send what a remote lacks, then move its refs. What was sent stays: a second try sends only the rest."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from shardfs.codecs import registry
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
from shardfs.formats.ids import CommitId, Kind
from shardfs.formats.ref import BRANCHES, TAGS, RefMove
from shardfs.history.objects import Objects
from shardfs.history.revisions import short
from shardfs.history.walk import is_ancestor
from shardfs.progress import Progress, no_progress
from shardfs.remotes.base import Remote, RemoteRefs
from shardfs.store import atomic, packs
from shardfs.store.closure import new_commits
from shardfs.store.layout import Layout
from shardfs.store.packs import FinishedPack, PackWriter
from shardfs.store.refs import RefStore
from shardfs.store.store import Store
from shardfs.transfer import plan, shipment
from shardfs.transfer.follow import tracking_name
from shardfs.transfer.plan import Reachable
from shardfs.transfer.reader import Reader
from shardfs.transfer.scratch import scratch
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


@dataclass
class PushReport:
    """What a push did.

    Attributes:
        moved: refs that moved at the remote.
        up_to_date: full names of refs that were right already.
        packs: packs that were sent.
        objects: objects and chunks in them.
        bytes: bytes of them.
    """

    moved: list[RefMove] = field(default_factory=list)
    up_to_date: list[str] = field(default_factory=list)
    packs: int = 0
    objects: int = 0
    bytes: int = 0


def plan_updates(refs: RefStore, remote: str, names: Sequence[str], *, tags: bool = False) -> list[RefUpdate]:
    """The updates that push branches or tags under their own names.

    Args:
        refs: refs here.
        remote: name of the remote.
        names: short or full names of branches and tags; ":name" deletes one at the remote.
        tags: add all tags.

    Raises:
        RefNotFoundError: no such branch or tag. UsageError: not a name.
    """
    full = {_full_name(refs, name.removeprefix(":")): name.startswith(":") for name in names}
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


def push(
    store: Store,
    reader: Reader,
    objects: Objects,
    remote: Remote,
    updates: Sequence[RefUpdate],
    *,
    force: bool = False,
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
        progress: told the bytes sent and to send.

    Raises:
        NotFastForwardError: a ref would lose commits; nothing was sent.
        RefChangedError: somebody else moved a ref meanwhile.
        NotFoundError, IntegrityError: something that a commit needs is missing here or damaged; no ref was moved.
        RemoteError: run the same push again, it sends only what is still missing.
    """
    published = _published(remote)
    report = PushReport()
    moves: list[RefMove] = []
    for update in updates:
        if published.refs.get(update.name) == update.new:
            report.up_to_date.append(update.name)
        else:
            moves.append(_check(store, objects, published, update, force=force))
    wanted = [move.new for move in moves if move.new is not None]
    if wanted:
        known = [CommitId(c) for c in store.index.has(published.refs.values(), local=True)]
        _Sender(store, reader, remote, report, progress or no_progress).send(
            plan.reachable(objects, new_commits(objects.commit, wanted, known))
        )
    for move in moves:
        remote.update_ref(move.name, move.old, move.new)
        report.moved.append(move)
    _follow(store, remote.name, report)
    return report


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


class _Sender:
    def __init__(self, store: Store, reader: Reader, remote: Remote, report: PushReport, progress: Progress) -> None:
        self._store = store
        self._reader = reader
        self._remote = remote
        self._report = report
        self._progress = progress
        self._total = 0
        self._present: set[bytes] = set()  # bases that the remote has
        self._alone: set[bytes] = set()  # what goes without bases

    def send(self, needed: Reachable) -> None:
        items = list(needed)
        lacking = set(self._lacking([id_ for _, id_ in items]))
        index = self._store.index
        missing = shipment.find_all(index, (item for item in items if item[1] in lacking))
        wanted = shipment.with_bases(index, missing, self._lacking_bases)
        self._alone = shipment.too_deep(index, wanted, self._remote.name)
        load = shipment.plan(index, wanted, self._alone)
        self._total = load.bytes
        self._report.objects = len(load)
        with scratch(self._store.layout, "push") as folder:
            damaged = self._send_whole(load, folder)
            self._send_loose([*damaged, *load.loose], folder)

    def _lacking(self, ids: Sequence[bytes]) -> list[bytes]:
        lacking: list[bytes] = []
        for start in range(0, len(ids), _HAS_BATCH):
            part = ids[start : start + _HAS_BATCH]
            try:
                answers = self._remote.has(part)
            except RepositoryNotFoundError:
                return list(ids)
            lacking += [id_ for id_, there in zip(part, answers, strict=True) if not there]
        return lacking

    def _lacking_bases(self, ids: Sequence[bytes]) -> list[bytes]:
        lacking = self._lacking(ids)
        self._present.update(set(ids) - set(lacking))
        return lacking

    def _send_whole(self, load: Shipment, folder: Layout) -> list[tuple[Kind, bytes]]:
        """Send packs as they are; returns what was in those that turned out to be damaged or gone."""
        damaged: list[tuple[Kind, bytes]] = []
        for pack_id, entries in load.packs.items():
            path = folder.pack(pack_id)
            if _link(self._store.layout.pack(pack_id), path) and packs.hash_file(path) == pack_id:
                self._put(path, FinishedPack(pack_id, path.stat().st_size, tuple(entries)))
            else:
                damaged += [(entry.kind, entry.id) for entry in entries]
        return damaged

    def _send_loose(self, items: Sequence[tuple[Kind, bytes]], folder: Layout) -> None:
        """Pack payloads anew, verified, and send the packs one by one."""
        writer: PackWriter | None = None
        try:
            for kind, id_ in items:
                if writer is None:
                    writer = PackWriter(folder)
                encoded, plaintext = self._reader.payload(kind, id_)
                if id_ in self._alone or not self._present.issuperset(encoded.bases):
                    encoded = registry.encode(plaintext, registry.dtype_of(encoded))
                writer.add(kind, id_, encoded.codec, encoded.payload, len(plaintext), encoded.bases)
                self._present.add(id_)
                if writer.is_full:
                    full, writer = writer, None
                    self._finish(full, folder)
            if writer is not None:
                self._finish(writer, folder)
        except BaseException:
            if writer is not None:
                writer.abort()
            raise

    def _finish(self, writer: PackWriter, folder: Layout) -> None:
        pack = writer.finish()
        self._put(folder.pack(pack.id), pack)

    def _put(self, path: Path, pack: FinishedPack) -> None:
        self._remote.put_pack(path, pack.id)
        path.unlink()
        self._store.index.add_packs([(pack.id, pack.size, pack.entries)], place=self._remote.name)
        self._present.update(entry.id for entry in pack.entries)
        self._report.packs += 1
        self._report.bytes += pack.size
        self._progress(self._report.bytes, max(self._total, self._report.bytes), "sending")


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


def _full_name(refs: RefStore, name: str) -> str:
    if name.startswith((BRANCHES, TAGS)):
        return ref_format.check_ref_name(name)
    branch, tag = BRANCHES + name, TAGS + name
    if not ref_format.is_ref_name(branch):
        msg = f"not the name of a branch or tag: {name!r}"
        raise UsageError(msg)
    return tag if refs.get(branch) is None and refs.get(tag) is not None else branch


def _link(source: Path, target: Path) -> bool:
    """Another name for a pack, so that a gc in between cannot take it away; False when it is gone already."""
    with atomic.os_errors(f"cannot write in {target.parent}"):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(source, target)
        except FileNotFoundError:
            return False
        except OSError:  # a file system without hard links
            shutil.copyfile(source, target)
    return True
