"""Fetch: learn what a remote has, keep its history and metadata here, follow its branches.

Chunks stay where they are until somebody reads them, unless all of it is asked for.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from shardfs.errors import FormatError, LockedError, PackNotFoundError, ReadOnlyError
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.formats.ref import PackSize, RefMove
from shardfs.progress import Progress, no_progress
from shardfs.remotes.base import Remote, read_pack_tail
from shardfs.store import copies
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.transfer.download import download
from shardfs.transfer.follow import follow, prune_refs
from shardfs.transfer.ranges import MAX_REQUEST, extend

_log = logging.getLogger(__name__)

# Bytes from the end of a pack in the first request: trailer, table and the objects of most packs.
TAIL_GUESS: Final = 64 << 10
_PARALLEL: Final = 8  # requests at once; hides the delay of a link, below what servers object to
_SOON_S: Final = 0.5  # that a reader waits for the writer lock; commits of small changes hold it for less
_FLUSH_SIZE: Final = 32 << 20  # bytes of objects in memory before they are stored


@dataclass
class FetchReport:
    """What a fetch did.

    Attributes:
        head: full name of the branch that the remote's HEAD names, if it says.
        moved: refs here that moved, pruned ones included.
        conflicts: one line for each ref of the remote that could not be followed.
        packs: packs that were not known before.
        forgotten: packs that the remote has no longer.
        objects: objects that were stored here.
        bytes: bytes that came from the remote.
    """

    head: str | None = None
    moved: list[RefMove] = field(default_factory=list)
    conflicts: list[str] = field(default_factory=list)
    packs: int = 0
    forgotten: int = 0
    objects: int = 0
    bytes: int = 0


@dataclass
class _Arrived:
    """A pack's table and the payloads of its objects."""

    pack: PackSize
    entries: list[Entry]
    payloads: list[tuple[Entry, bytes]]


def fetch(
    store: Store, remote: Remote, *, full: bool = False, prune: bool = False, progress: Progress | None = None
) -> FetchReport:
    """Bring the index, the objects and the remote-tracking branches up to date with a remote.

    May be interrupted anywhere and run again; what is here already is not transferred again.

    Args:
        store: where to.
        remote: where from.
        full: copy all packs, not only objects.
        prune: delete remote-tracking branches that are gone at the remote.
        progress: told the bytes that came and will come.

    Raises:
        RemoteError, RepositoryNotFoundError: by the remote. Refs here did not move.
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    report = FetchReport()
    # Refs before packs: what the refs need is in packs that are listed later, never only in earlier ones.
    published = remote.refs()
    listed = {pack.id: pack for pack in remote.list_packs()}
    work = _Fetch(store, remote, report, progress or no_progress)
    work.run(listed, full=full)
    report.head = published.head
    if prune:
        report.moved += prune_refs(store, remote.name, published)
    moved, report.conflicts = follow(store, remote.name, published)
    report.moved += moved
    if report.conflicts and work.mend(listed):
        moved, report.conflicts = follow(store, remote.name, published)
        report.moved += moved
    return report


def learn_packs(store: Store, remote: Remote, deadline_s: float) -> None:
    """Learn where a remote holds chunks now, after it has packed them anew; no ref moves.

    A reader waits for this: after `deadline_s` seconds no further pack is asked for, and nobody waits long for the
    writer lock, which storing the objects of a pack takes when some are not here. The packs that are gone are forgotten
    when all others are known: until then a reader that finds one of them gone learns on.

    Raises:
        RemoteError, RepositoryNotFoundError: by the remote.
    """
    index, place, started = store.index, remote.name, time.monotonic()
    work = _Fetch(store, remote, FetchReport(), no_progress)
    known, listed = index.packs(place), {pack.id: pack for pack in remote.list_packs()}
    complete = True
    for pack in (listed[id_] for id_ in listed.keys() - known.keys()):
        if time.monotonic() - started > deadline_s:
            return
        with suppress(PackNotFoundError):
            entries = index.entries(pack.id) or read_pack_tail(remote, pack, TAIL_GUESS).entries
            objects = {entry.id for entry in entries if entry.kind is not Kind.CHUNK}
            if index.has(objects, local=True) == objects:
                index.add_packs([(pack.id, pack.size, entries)], place=place)
            else:
                complete &= work.learn_soon(pack)
    if complete:
        index.remove_packs(known.keys() - listed.keys(), place=place)


def learn_tables(store: Store, remote: Remote) -> None:
    """Learn what is in all packs of a remote now; no ref moves. For those that cannot say which ids they have.

    Raises:
        RemoteError, RepositoryNotFoundError: by the remote.
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    listed = {pack.id: pack for pack in remote.list_packs()}
    _Fetch(store, remote, FetchReport(), no_progress).run(listed, full=False)


class _Fetch:
    def __init__(self, store: Store, remote: Remote, report: FetchReport, progress: Progress) -> None:
        self._store = store
        self._remote = remote
        self._report = report
        self._progress = progress
        self._total = 0
        self._guard = threading.Lock()

    def run(self, listed: dict[PackId, PackSize], *, full: bool) -> None:
        index, place = self._store.index, self._remote.name
        known, here = index.packs(place), index.packs(LOCAL)
        if full:
            self._copy([pack for pack in listed.values() if pack.id not in here or not self._is_known(pack)])
        else:
            self._learn([pack for pack in listed.values() if pack.id not in known and not self._is_known(pack)])
        gone = known.keys() - listed.keys()
        index.remove_packs(gone, place=place)
        self._report.forgotten = len(gone)

    def mend(self, listed: dict[PackId, PackSize]) -> bool:
        """Ask again for objects that came damaged, now or in an earlier fetch; whether there are any."""
        lacking = [pack for pack in listed.values() if not self._has_objects(pack.id)]
        self._learn(lacking)
        return bool(lacking)

    def _has_objects(self, pack_id: PackId) -> bool:
        """Whether all objects of a pack are here."""
        objects = {entry.id for entry in self._store.index.entries(pack_id) if entry.kind is not Kind.CHUNK}
        return self._store.index.has(objects, local=True) == objects

    def _is_known(self, pack: PackSize) -> bool:
        """Whether the table of a pack is known from here or from another remote; then its place is recorded too."""
        known = bool(self._store.index.entries(pack.id))
        if known:
            self._store.index.add_packs([(pack.id, pack.size, ())], place=self._remote.name)
        return known

    def learn_soon(self, pack: PackSize) -> bool:
        """Learn one pack with its objects; False when another process holds the lock, or nobody may write here."""
        try:
            with self._store.lock.hold("fetch", wait_s=_SOON_S):
                self._learn([pack])
        except (LockedError, ReadOnlyError):
            return False
        return True

    # Whole packs

    def _copy(self, packs: list[PackSize]) -> None:
        self._total = sum(pack.size for pack in packs)
        for pack in packs:
            with suppress(PackNotFoundError):
                if not self._is_held(pack.id):
                    download(self._store, self._remote, pack, self._arrived)
                    self._report.packs += 1
                self._store.index.add_packs([(pack.id, pack.size, ())], place=self._remote.name)

    def _is_held(self, pack_id: PackId) -> bool:
        """Whether everything in a known pack of the remote is here, in other packs."""
        ids = {entry.id for entry in self._store.index.entries(pack_id)}
        return bool(ids) and self._store.index.has(ids, local=True) == ids

    # Tables and objects

    def _learn(self, packs: list[PackSize]) -> None:
        self._total = sum(min(pack.size, TAIL_GUESS) for pack in packs)
        waiting: list[_Arrived] = []
        with ThreadPoolExecutor(_PARALLEL, "shardfs-fetch") as pool:
            for start in range(0, len(packs), _PARALLEL):
                arrived = pool.map(self._read, packs[start : start + _PARALLEL])
                waiting += [one for one in arrived if one is not None]
                if sum(len(p) for one in waiting for _, p in one.payloads) >= _FLUSH_SIZE:
                    self._keep(waiting)
                    waiting = []
        self._keep(waiting)

    def _read(self, pack: PackSize) -> _Arrived | None:
        """Table and missing objects of one pack; None when the remote dropped it meanwhile."""
        try:
            tail = read_pack_tail(self._remote, pack, TAIL_GUESS)
            self._arrived(len(tail.data))
            objects = [e for e in tail.entries if e.kind is not Kind.CHUNK]
            here = self._store.index.has((e.id for e in objects), local=True)
            payloads: list[tuple[Entry, bytes]] = []
            early: list[Entry] = []
            for entry in objects:
                if entry.id in here:
                    continue
                if entry.offset < tail.offset:
                    early.append(entry)
                else:
                    begin = entry.offset - tail.offset
                    payloads.append((entry, tail.data[begin : begin + entry.stored_size]))
            payloads += self._read_early(pack, early)
        except PackNotFoundError:
            return None
        return _Arrived(pack, tail.entries, [item for item in payloads if self._is_good(pack, *item)])

    def _read_early(self, pack: PackSize, entries: list[Entry]) -> list[tuple[Entry, bytes]]:
        payloads: list[tuple[Entry, bytes]] = []
        while entries:
            span = extend(entries[0], entries[1:], MAX_REQUEST, lambda _: True)
            data = self._remote.read_pack(pack.id, span.start, span.end - span.start) if span.end > span.start else b""
            self._arrived(len(data))
            payloads += [(e, data[e.offset - span.start : e.offset - span.start + e.stored_size]) for e in span.entries]
            entries = entries[len(span.entries) :]
        return payloads

    def _is_good(self, pack: PackSize, entry: Entry, payload: bytes) -> bool:
        """Whether a payload is what its id says; a bad one is left for `mend`, and readers, who know other copies."""
        try:
            copies.verify_object(entry, payload)
        except FormatError as error:
            _log.warning("%s, pack %s: %s", self._remote.name, pack.id.hex()[:12], error)
            return False
        return True

    def _keep(self, arrived: list[_Arrived]) -> None:
        """Store objects durably, and only then remember that the remote's packs are known."""
        if any(one.payloads for one in arrived):
            with self._store.batch("fetch") as batch:
                for one in arrived:
                    for entry, payload in one.payloads:
                        batch.copy(entry, payload)
                        self._report.objects += 1
        known = self._store.index.packs(self._remote.name)
        self._store.index.add_packs(((a.pack.id, a.pack.size, a.entries) for a in arrived), place=self._remote.name)
        self._report.packs += sum(a.pack.id not in known for a in arrived)

    def _arrived(self, count: int) -> None:
        with self._guard:
            self._report.bytes += count
            done = self._report.bytes
        self._progress(done, max(self._total, done), "receiving")
