"""Every byte of every pack: the id of the pack, its table, and each payload decoded and compared with its id."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

from shardfs.errors import IndexCorruptedError, IntegrityError, NotFoundError, PackCorruptedError, ShardfsError
from shardfs.formats.ids import PackId
from shardfs.formats.pack import HEADER, Entry
from shardfs.maintenance.problems import Problem
from shardfs.maintenance.soundness import Soundness
from shardfs.progress import Progress
from shardfs.store import packs
from shardfs.store.index import LOCAL
from shardfs.store.packs import FinishedPack
from shardfs.store.store import Store

_BLOCK: Final = 1 << 20  # bytes


@dataclass
class PackChecks:
    """What is in the packs.

    Attributes:
        packs, payloads: how many were read.
        read_bytes: bytes of those packs.
        sound: ids that have a sound copy here, with the bytes of their plaintext.
        damaged: ids that have a damaged copy here, with its entry, pack and what is wrong.
        problems: packs and index rows that are wrong.
    """

    packs: int = 0
    read_bytes: int = 0
    payloads: int = 0
    sound: dict[bytes, int] = field(default_factory=dict)
    damaged: dict[bytes, tuple[Entry, PackId, str]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def check_packs(store: Store, soundness: Soundness, progress: Progress) -> PackChecks:
    """Read all packs of a store; each file is read once."""
    result = PackChecks()
    there = packs.list_packs(store.layout)
    for line in store.index.check():
        result.problems.append(Problem("index", "index.sqlite", line))
    indexed = _indexed(store)
    total = sum(there.values())
    for pack_id in (indexed - there.keys()) & _indexed(store):
        result.problems.append(_pack_problem(pack_id, "the index names it and the file is missing"))
    for pack_id, size in there.items():
        _Check(store, soundness, pack_id, result).run(pack_id in indexed)
        result.packs += 1
        result.read_bytes += size
        progress(result.read_bytes, total, "verifying")
    return result


def _indexed(store: Store) -> set[PackId]:
    try:
        return set(store.index.packs(LOCAL))
    except IndexCorruptedError:
        return set()


def _pack_problem(pack_id: PackId, problem: str) -> Problem:
    return Problem("pack", pack_id.hex(), problem, pack=pack_id.hex())


class _Check:
    def __init__(self, store: Store, soundness: Soundness, pack_id: PackId, result: PackChecks) -> None:
        self._store = store
        self._soundness = soundness
        self._pack_id = pack_id
        self._result = result

    def run(self, indexed: bool) -> None:
        path = self._store.layout.pack(self._pack_id)
        try:
            table = packs.read_table(path)
        except PackCorruptedError as error:
            if path.exists():  # else a gc took it away meanwhile
                self._note(str(error))
                self._read_by_index()
            return
        try:
            if self._read_payloads(path, table) != self._pack_id:
                self._note("its bytes do not have its id")
        except OSError as error:
            self._note(f"it cannot be read: {error.strerror}")
        self._compare(table, indexed)

    def _note(self, problem: str) -> None:
        self._result.problems.append(_pack_problem(self._pack_id, problem))

    def _read_payloads(self, path: Path, table: FinishedPack) -> bytes:
        """Check each payload on the way through the file; returns the id of what was read."""
        hasher = blake3()
        with path.open("rb", buffering=_BLOCK) as file:
            _take(file, len(HEADER), hasher)
            for entry in table.entries:
                self._judge(entry, _take(file, entry.stored_size, hasher))
            while block := file.read(_BLOCK):
                hasher.update(block)
        return hasher.digest()

    def _read_by_index(self) -> None:
        """A pack without a table: payloads may still be where the index says."""
        try:
            entries = self._store.index.entries(self._pack_id)
        except IndexCorruptedError:
            return
        for entry in entries:
            if self._soundness.is_sound(self._pack_id, entry):
                self._result.sound[entry.id] = entry.raw_size

    def _judge(self, entry: Entry, payload: bytes) -> None:
        self._result.payloads += 1
        try:
            self._soundness.check(entry, payload)
        except (IntegrityError, NotFoundError) as error:
            self._result.damaged[entry.id] = (entry, self._pack_id, str(error))
            if isinstance(error, IntegrityError):
                with suppress(ShardfsError):  # so that adding the content again stores it again
                    self._store.index.mark_damaged(entry.id, self._pack_id)
        else:
            self._result.sound[entry.id] = entry.raw_size

    def _compare(self, table: FinishedPack, indexed: bool) -> None:
        if not indexed:
            return  # an orphan that a kill left behind; readers and gc index it
        if not self._store.index_agrees(table):
            message = "the index disagrees with the table of this pack"
            self._result.problems.append(Problem("index", "index.sqlite", message, pack=self._pack_id.hex()))


def _take(file: BinaryIO, size: int, hasher: blake3) -> bytes:
    data = file.read(size)
    hasher.update(data)
    return data
