"""The index: which pack holds which id, and where packs are. SQLite, rebuildable from packs alone.

Spec: docs/design/format/index.md. The file and its connections: index_file.py.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardfs.errors import IndexCorruptedError, StoreError
from shardfs.formats.ids import Kind, PackId, split_ids
from shardfs.formats.pack import Entry
from shardfs.store.database import Connection, database_errors, immediate
from shardfs.store.index_file import IndexFile

LOCAL: Final = ""  # the place of packs in this store; any other place is the name of a remote
PackTable = tuple[PackId, int, Sequence[Entry]]  # a pack, its size in bytes, its entries
_BATCH: Final = 500  # ids per SELECT ... IN: 434 k ids/s against 171 k/s one by one


class Location(NamedTuple):
    """One copy of a payload: `place` is LOCAL or the name of a remote."""

    place: str
    pack: PackId
    pack_size: int
    entry: Entry


_SOUND: Final = f"NOT (c.place = '{LOCAL}' AND EXISTS (SELECT 1 FROM damaged x WHERE x.id = e.id AND x.pack = e.pack))"
"""A condition on an entry `e` at a place `c`: nobody found this copy damaged."""


class Index:
    """Lookups by id. Safe to share between threads and processes; close() once.

    When the file is deleted or replaced, by whomever, the next query goes on with the new one.
    """

    def __init__(self, path: Path, tmp: Path, tables: Callable[[], Iterable[PackTable]], *, anew: bool = False) -> None:
        """Open the index at `path`; make it from the packs' own tables when it is missing.

        Args:
            path: the database.
            tmp: directory for an unfinished file, on the same file system.
            tables: reads the tables of all local packs.
            anew: make it again even if it is there.

        Raises:
            IndexCorruptedError: not a readable database of this version. ReadOnlyError, OutOfSpaceError, StoreError.
        """
        self._tables = tables
        self._forget_folder: weakref.finalize[..., Index] | None = None
        self._file = IndexFile(path, tmp, self._fill, anew=anew)

    @classmethod
    def private(cls, path: Path, tables: Callable[[], Iterable[PackTable]]) -> Index:
        """An index of this process alone, for a store on a read-only or full disk: a copy of `path`, or made anew.

        Raises:
            StoreError: there is no room for it in the system's temporary directory either.
        """
        folder = tempfile.mkdtemp(prefix="shardfs-index-")
        copy = Path(folder, path.name)
        for suffix in ("", "-wal"):
            with suppress(OSError):
                shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
        try:
            try:
                index = cls(copy, copy.parent, tables)
            except IndexCorruptedError:  # copied while it was written to
                index = cls(copy, copy.parent, tables, anew=True)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        index._forget_folder = weakref.finalize(index, shutil.rmtree, folder, ignore_errors=True)
        return index

    @property
    def is_private(self) -> bool:
        """Whether this is a copy that no other process sees."""
        return self._forget_folder is not None

    def rebuild(self) -> None:
        """Make the index again from the packs' own tables; packs of remotes are forgotten."""
        self._file.replace()

    def close(self) -> None:
        """Close the connections of all threads."""
        self._file.close()
        if self._forget_folder is not None:
            self._forget_folder()

    # Reading

    def find(self, id_: bytes) -> list[Location]:
        """Every known copy of an id, local ones first."""
        sql = """
            SELECT c.place, p.id, p.size, e.id, e.kind, e.codec, e.offset, e.stored_size, e.raw_size, e.bases
            FROM entries e JOIN packs p USING (pack) JOIN copies c USING (pack)
            WHERE e.id = ? ORDER BY c.place, p.pack DESC"""
        return [found for row in self._query(sql, (id_,)) if (found := _location(row))]

    def find_many(
        self, ids: Iterable[bytes], rank: Callable[[str], Any] = lambda place: place
    ) -> dict[bytes, Location]:
        """One copy of each id: one of this store, else one at the remote that `rank` sorts first."""
        found: dict[bytes, Location] = {}
        ranks: dict[str, tuple[bool, Any]] = {}
        for part, marks in _parts(ids):
            sql = f"""
                SELECT c.place, p.id, p.size, e.id, e.kind, e.codec, e.offset, e.stored_size, e.raw_size, e.bases
                FROM entries e JOIN packs p USING (pack) JOIN copies c USING (pack)
                WHERE e.id IN ({marks}) ORDER BY p.pack"""
            for row in self._query(sql, part):
                if location := _location(row):
                    if location.place not in ranks:
                        ranks[location.place] = (location.place != LOCAL, rank(location.place))
                    before = found.get(row[3])
                    if before is None or ranks[location.place] <= ranks[before.place]:
                        found[row[3]] = location
        return found

    def places(self, pack_id: PackId) -> list[str]:
        """Where copies of a pack are."""
        sql = "SELECT c.place FROM packs p JOIN copies c USING (pack) WHERE p.id = ? ORDER BY c.place"
        return [row[0] for row in self._query(sql, (pack_id,)) if isinstance(row[0], str)]

    def has(self, ids: Iterable[bytes], *, local: bool = False, place: str | None = None) -> set[bytes]:
        """Those of `ids` that some pack holds (`local`: some pack of this store; `place`: some pack at that place)."""
        found: set[bytes] = set()
        where, values = ("AND c.place = ?", [LOCAL if local else place]) if local or place is not None else ("", [])
        for part, marks in _parts(ids):
            sql = f"SELECT e.id FROM entries e JOIN copies c USING (pack) WHERE e.id IN ({marks}) {where}"
            found.update(row[0] for row in self._query(sql, [*part, *values]))
        return found

    def has_sound(self, ids: Iterable[bytes]) -> set[bytes]:
        """Those of `ids` that some pack holds in a copy which nobody found damaged: what need not be stored again."""
        found: set[bytes] = set()
        for part, marks in _parts(ids):
            sql = f"SELECT e.id FROM entries e JOIN copies c USING (pack) WHERE e.id IN ({marks}) AND {_SOUND}"
            found.update(row[0] for row in self._query(sql, part))
        return found

    def lacks_sound_copies(self) -> bool:
        """Whether some id is known to be damaged wherever it is."""
        sql = f"""
            SELECT 1 FROM damaged d WHERE NOT EXISTS (
                SELECT 1 FROM entries e JOIN copies c USING (pack) WHERE e.id = d.id AND {_SOUND}
            ) LIMIT 1"""
        return bool(self._query(sql, ()))

    def damaged_packs(self) -> set[PackId]:
        """Packs here that hold a copy which was found damaged."""
        sql = "SELECT DISTINCT p.id FROM damaged d JOIN packs p USING (pack)"
        return {PackId(row[0]) for row in self._query(sql, ())}

    def packs(self, place: str = LOCAL) -> dict[PackId, int]:
        """Packs at a place with their sizes in bytes."""
        sql = "SELECT p.id, p.size FROM packs p JOIN copies c USING (pack) WHERE c.place = ?"
        return {PackId(row[0]): row[1] for row in self._query(sql, (place,)) if isinstance(row[0], bytes)}

    def entries(self, pack_id: PackId) -> list[Entry]:
        """Entries of one pack in the order of their payloads.

        Raises:
            IndexCorruptedError: one of them cannot be one.
        """
        sql = """
            SELECT '', p.id, p.size, e.id, e.kind, e.codec, e.offset, e.stored_size, e.raw_size, e.bases
            FROM entries e JOIN packs p USING (pack) WHERE p.id = ? ORDER BY e.offset, e.id"""
        locations = [_location(row) for row in self._query(sql, (pack_id,))]
        if None in locations:
            msg = f"index names impossible entries of pack {pack_id.hex()[:12]}; run `shardfs doctor --rebuild-index`"
            raise IndexCorruptedError(msg)
        return [location.entry for location in locations if location]

    def totals(self) -> dict[str, int]:
        """Number and bytes of local packs, without a look at their entries."""
        sql = "SELECT count(*), coalesce(sum(size), 0) FROM packs JOIN copies USING (pack) WHERE place = ?"
        [(count, size)] = self._query(sql, (LOCAL,))
        return {"count": count, "bytes": size}

    def match(self, kind: Kind, prefix: bytes, high: bytes) -> list[bytes]:
        """Ids of a kind in [prefix, high], at most 20: for abbreviated ids."""
        sql = "SELECT DISTINCT id FROM entries WHERE id BETWEEN ? AND ? AND kind = ? LIMIT 20"
        return [row[0] for row in self._query(sql, (prefix, high, kind))]

    # Writing

    def add_packs(self, packs: Iterable[PackTable], place: str = LOCAL) -> None:
        """Record packs and their entries at a place, in one transaction.

        A pack that is known already keeps its entries and gains the place, except that what a local pack's own table
        says replaces what a remote said about it.
        """
        with self._transaction() as db:
            for pack_id, size, entries in packs:
                _add_pack(db, pack_id, size, entries, place)

    def remove_packs(self, pack_ids: Iterable[PackId], place: str = LOCAL) -> None:
        """Forget that packs are at a place; packs that are nowhere lose their entries."""
        with self._transaction() as db:
            for pack_id in pack_ids:
                row = db.execute("SELECT pack FROM packs WHERE id = ?", (pack_id,)).fetchone()
                if row is None:
                    continue
                db.execute("DELETE FROM copies WHERE pack = ? AND place = ?", (row[0], place))
                if db.execute("SELECT 1 FROM copies WHERE pack = ?", row).fetchone() is None:
                    for table in ("entries", "damaged", "packs"):
                        db.execute(f"DELETE FROM {table} WHERE pack = ?", row)

    def mark_damaged(self, id_: bytes, pack_id: PackId) -> None:
        """Remember that the copy of an id in a pack of this store is damaged."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO damaged SELECT ?, pack FROM packs WHERE id = ?", (id_, pack_id))

    def forget_impossible(self) -> int:
        """Delete rows that name no pack, which only flipped bits make; returns how many."""
        rows = 0
        with self._transaction() as db:
            rows += db.execute("DELETE FROM packs WHERE typeof(id) <> 'blob' OR length(id) <> 32").rowcount
            for table in ("copies", "entries", "damaged"):
                rows += db.execute(f"DELETE FROM {table} WHERE pack NOT IN (SELECT pack FROM packs)").rowcount
        return rows

    def mend_pack(self, table: PackTable, is_there: Callable[[], bool]) -> None:
        """Write the entries of a local pack again: the pack's own table is right, the index was not.

        Args:
            table: the pack.
            is_there: asked inside the transaction whether the pack still exists. Whoever deletes a pack takes it out
                of the index afterwards once more, so that it never comes back by this.
        """
        with self._transaction() as db:
            if is_there():
                _add_pack(db, *table, LOCAL)

    def check(self) -> list[str]:
        """What SQLite's own check finds wrong; empty when sound."""
        try:
            held = self._connect()
            rows = held.sqlite.execute("PRAGMA quick_check").fetchall()
        except (sqlite3.DatabaseError, IndexCorruptedError) as error:
            return [str(error)]
        return [row[0] for row in rows if row[0] != "ok"]

    def _fill(self, connection: sqlite3.Connection) -> None:
        with immediate(connection) as db:
            for pack_id, size, entries in self._tables():
                _add_pack(db, pack_id, size, entries, LOCAL)

    def _query(self, sql: str, values: Sequence[Any]) -> list[Any]:
        for tries_left in (2, 1, 0):
            try:
                with database_errors(self._file.path):
                    held = self._connect()
                    return held.sqlite.execute(sql, values).fetchall()
            except (StoreError, IndexCorruptedError):
                if not tries_left or self._file.is_current():
                    raise
        return []

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with database_errors(self._file.path):
            held = self._connect()
            with immediate(held.sqlite) as db:
                yield db

    def _connect(self) -> Connection:
        return self._file.connection()


def _add_pack(db: sqlite3.Connection, pack_id: PackId, size: int, entries: Sequence[Entry], place: str) -> None:
    row = db.execute("SELECT pack FROM packs WHERE id = ?", (pack_id,)).fetchone()
    if row is None:
        row = (db.execute("INSERT INTO packs (id, size) VALUES (?, ?)", (pack_id, size)).lastrowid,)
    elif place == LOCAL:
        db.execute("UPDATE packs SET size = ? WHERE pack = ?", (size, *row))
        db.execute("DELETE FROM entries WHERE pack = ?", row)
        # The same payloads make the same pack: storing a damaged one again replaced its file.
        db.execute("DELETE FROM damaged WHERE pack = ?", row)
    else:
        entries = ()
    db.executemany(
        "INSERT OR IGNORE INTO entries (id, pack, kind, codec, offset, stored_size, raw_size, bases)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((e.id, *row, e.kind, e.codec, e.offset, e.stored_size, e.raw_size, b"".join(e.bases)) for e in entries),
    )
    db.execute("INSERT OR IGNORE INTO copies (pack, place) VALUES (?, ?)", (*row, place))


def _parts(ids: Iterable[bytes]) -> Iterator[tuple[list[bytes], str]]:
    items = list(dict.fromkeys(ids))
    for start in range(0, len(items), _BATCH):
        part = items[start : start + _BATCH]
        yield part, ",".join("?" * len(part))


def _location(row: tuple[str, bytes, int, bytes, int, int, int, int, int, bytes]) -> Location | None:
    """A row as a location; None for a kind or bases that cannot be, which only flipped bits make."""
    place, pack_id, pack_size, id_, kind, codec, offset, stored, raw, bases = row
    try:
        entry = Entry(id_, Kind(kind), codec, offset, stored, raw, split_ids(bases))
    except (ValueError, TypeError):
        return None
    return Location(place, PackId(pack_id), pack_size, entry)
