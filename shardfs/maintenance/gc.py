"""Garbage collection: delete what nothing needs.

Fails closed: a name or an object on the way that cannot be read stops it before anything changes. Every step leaves
a whole store behind: payloads are durable in a new pack before the old one goes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from shardfs.errors import IntegrityError, NotFoundError
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.history.objects import Objects
from shardfs.maintenance import roots
from shardfs.maintenance.sorting import Sorting, sort_packs
from shardfs.maintenance.soundness import Soundness
from shardfs.progress import Progress, no_progress
from shardfs.store import atomic, packs
from shardfs.store.packs import FinishedPack
from shardfs.store.store import Store

# A push may send packs for hours before it moves a ref; what is younger than this may be on its way.
GRACE_S: Final = 24 * 3600.0
_GROUP_SIZE: Final = 256 << 20  # bytes copied before the packs that they came from are deleted


@dataclass
class GcReport:
    """What gc did, or would do.

    Attributes:
        live: objects and chunks that are needed, by young packs too.
        live_bytes: their stored bytes here.
        dropped: packs that were deleted because nothing in them is needed.
        rewritten: packs that were deleted after what is needed was copied out of them.
        freed_bytes: bytes by which the packs became fewer.
        kept_young: packs that hold something not needed and are younger than the grace period.
        stale_files: unfinished writes that were removed.
        problems: packs that were left alone because they could not be read or hold the only copy of something damaged.
        dry_run: whether nothing was changed.
    """

    live: int = 0
    live_bytes: int = 0
    dropped: list[PackId] = field(default_factory=list)
    rewritten: list[PackId] = field(default_factory=list)
    freed_bytes: int = 0
    kept_young: int = 0
    stale_files: int = 0
    problems: list[str] = field(default_factory=list)
    dry_run: bool = False


def gc(
    store: Store,
    objects: Objects,
    *,
    keep: Iterable[tuple[Kind, bytes]] = (),
    grace_s: float = GRACE_S,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> GcReport:
    """Delete packs that hold nothing that is needed, and copy the needed rest out of packs that hold little.

    Needed is what refs, HEAD, the last 30 days of reflogs and `keep` reach, and what chunks in young packs depend on.
    Holds the writer lock.

    Args:
        store: what to clean.
        objects: reads history.
        keep: further roots of any kind: what staging areas refer to.
        grace_s: packs younger than this many seconds are left alone.
        dry_run: change nothing.
        progress: told the bytes copied.

    Raises:
        RefCorruptedError: a name cannot be read. ObjectNotFoundError, ObjectCorruptedError, RemoteError: an object
            that is needed cannot be read. Nothing was deleted.
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk; nothing needed was deleted.
    """
    with store.lock.hold("gc"):
        report = GcReport(dry_run=dry_run)
        if not dry_run:
            store.reconcile()
        # The packs' own tables: the index, which may be wrong, decides nothing here.
        tables, unreadable = packs.read_tables(store.layout)
        report.problems += [f"{error}; left alone" for error in unreadable.values()]
        young = young_packs(store, tables, grace_s)
        live = roots.with_bases((id_ for _, id_ in roots.needed(store, objects, keep)), tables.values())
        live |= roots.coming(tables, young)
        sound = Soundness(store)
        sorting = sort_packs(tables, live, young, sound.is_sound, store.index.damaged_packs())
        _describe(report, sorting, tables, live)
        if not dry_run:
            _Collection(store, sound, tables, report, progress or no_progress).run(sorting)
            report.stale_files = atomic.remove_stale(store.layout.tmp, min(grace_s, atomic.STALE_AFTER_S))
        return report


def young_packs(store: Store, tables: Iterable[PackId], grace_s: float) -> set[PackId]:
    """Those of some packs that were written in the last `grace_s` seconds."""
    now = time.time()
    young: set[PackId] = set()
    for pack_id in tables:
        with suppress(FileNotFoundError):
            if now - store.layout.pack(pack_id).stat().st_mtime < grace_s:
                young.add(pack_id)
    return young


def _describe(report: GcReport, sorting: Sorting, tables: dict[PackId, FinishedPack], live: set[bytes]) -> None:
    report.live = len(live)
    report.live_bytes = sum(sorting.owned_bytes.values())
    report.kept_young = sorting.kept_young
    report.problems += sorting.problems
    report.dropped = list(sorting.drop)
    report.rewritten = list(sorting.rewrite)
    gone = sum(tables[p].size for p in (*sorting.drop, *sorting.rewrite))
    report.freed_bytes = gone - sum(sorting.owned_bytes[p] for p in sorting.rewrite)


class _Collection:
    """The part that changes the store."""

    def __init__(
        self,
        store: Store,
        sound: Soundness,
        tables: dict[PackId, FinishedPack],
        report: GcReport,
        progress: Progress,
    ) -> None:
        self._store = store
        self._sound = sound
        self._tables = tables
        self._report = report
        self._progress = progress

    def run(self, sorting: Sorting) -> None:
        self._store.drop_packs(sorting.drop)
        total = sum(sorting.owned_bytes[p] for p in sorting.rewrite)
        self._report.rewritten = []
        before = sum(self._store.index.packs().values())
        done = 0
        group: dict[PackId, list[Entry]] = {}
        for pack_id, entries in sorting.rewrite.items():
            group[pack_id] = entries
            done += sorting.owned_bytes[pack_id]
            if sum(e.stored_size for entries in group.values() for e in entries) >= _GROUP_SIZE:
                self._rewrite(group)
                group = {}
                self._progress(done, total, "packing")
        self._rewrite(group)
        self._progress(done, total, "packing")
        dropped = sum(self._tables[p].size for p in sorting.drop)
        self._report.freed_bytes = dropped + before - sum(self._store.index.packs().values())

    def _rewrite(self, group: dict[PackId, list[Entry]]) -> None:
        """Copy entries into new packs, durably, then delete the packs that they came from."""
        copied: list[PackId] = []
        with self._store.batch("gc") as batch:
            for pack_id, entries in group.items():
                try:
                    for entry in entries:
                        batch.put_encoded(entry.kind, entry.id, self._sound.read(pack_id, entry), entry.raw_size)
                except (IntegrityError, NotFoundError) as error:
                    self._report.problems.append(f"pack {pack_id.hex()[:12]} is left alone: {error}")
                else:
                    copied.append(pack_id)
            # A pack that was taken for damaged and is sound may have been made again: the same bytes, the same id.
            made = {pack.id for pack in batch.publish()}
        self._store.drop_packs(pack_id for pack_id in copied if pack_id not in made)
        self._report.rewritten += copied
