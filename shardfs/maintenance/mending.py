"""Damaged packs made whole again from other packs, the cache and remotes. Nothing is deleted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from shardfs.codecs import registry
from shardfs.errors import IndexCorruptedError, IntegrityError, NotFoundError, PackCorruptedError, ShardfsError
from shardfs.formats.ids import PackId
from shardfs.formats.pack import Entry
from shardfs.maintenance.packcheck import check_packs
from shardfs.maintenance.soundness import Soundness
from shardfs.progress import Progress, no_progress
from shardfs.store import packs
from shardfs.store.index import LOCAL
from shardfs.store.store import Batch, Store
from shardfs.transfer.reader import Reader


@dataclass
class MendReport:
    """What was mended.

    Attributes:
        payloads: chunks and objects of damaged packs that were stored again.
        healed: of them those that were damaged, and came from another pack, the cache or a remote.
        lost: hexadecimal ids of which no good copy is known.
        packs: damaged packs that were replaced.
        folder: where their files are now; None when those were written over, with the same payloads.
        kept: damaged packs that stay where they are, because something in them is lost.
    """

    payloads: int = 0
    healed: int = 0
    lost: list[str] = field(default_factory=list)
    packs: list[str] = field(default_factory=list)
    folder: Path | None = None
    kept: list[str] = field(default_factory=list)


def mend(store: Store, reader: Reader, *, progress: Progress | None = None) -> MendReport:
    """Read all packs, and store again what is in damaged ones. May be interrupted anywhere and run again.

    A damaged pack is set aside when all that was in it is durable in other packs, and not before.

    Args:
        store: what to mend.
        reader: finds copies elsewhere.
        progress: told the bytes of packs read.

    Raises:
        LockedError, OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    report = MendReport()
    with store.lock.hold("repair"):
        work = _Mending(store, reader, report)
        checks = check_packs(store, work.soundness, progress or no_progress)
        named = {PackId(bytes.fromhex(found.pack)) for found in checks.problems if found.kind == "pack" and found.pack}
        damaged = {pack for pack in named if store.layout.pack(pack).exists()}
        with store.batch("repair") as batch:
            complete = [pack for pack in sorted(damaged) if work.save(pack, damaged, batch)]
        report.kept = [pack.hex() for pack in sorted(damaged) if pack not in complete]
        # The same payloads make the same pack: then its file was written over already.
        wrong = [pack for pack in complete if packs.hash_file(store.layout.pack(pack)) != pack]
        report.packs = [pack.hex() for pack in complete]
        report.folder = store.set_aside(wrong) if wrong else None
    return report


class _Mending:
    def __init__(self, store: Store, reader: Reader, report: MendReport) -> None:
        self._store = store
        self._reader = reader
        self._report = report
        self.soundness = Soundness(store)

    def save(self, pack: PackId, damaged: set[PackId], batch: Batch) -> bool:
        """Have all that is in a damaged pack in others; whether nothing of it is lost."""
        entries, is_known = self._entries(pack)
        for entry in entries:
            copies = self._store.find(entry.id)
            if not any(copy.place == LOCAL and copy.pack not in damaged for copy in copies):
                is_known &= self._save(pack, entry, batch)
        return is_known

    def _entries(self, pack: PackId) -> tuple[list[Entry], bool]:
        """What is in a pack by its own table, else by the index; and whether that is known."""
        try:
            return list(packs.read_table(self._store.layout.pack(pack)).entries), True
        except PackCorruptedError:
            try:
                entries = self._store.index.entries(pack)
            except IndexCorruptedError:
                entries = []
            return entries, bool(entries)

    def _save(self, pack: PackId, entry: Entry, batch: Batch) -> bool:
        """Store one payload again, as it is or from another copy; whether there was a good one."""
        try:
            batch.put_encoded(entry.kind, entry.id, self.soundness.read(pack, entry), entry.raw_size)
        except (IntegrityError, NotFoundError):
            try:
                plaintext = self._reader.payload(entry.kind, entry.id)[1]
            except ShardfsError:
                self._report.lost.append(entry.id.hex())
                return False
            # Without bases: they may be what is damaged, or far away.
            batch.put_encoded(entry.kind, entry.id, registry.encode(plaintext), len(plaintext))
            self._report.healed += 1
        self._report.payloads += 1
        return True
