"""The SQLite index of the cache: which payload lies where, which plain files there are, and what was used when.

Spec: docs/design/format/cache.md. Every method raises sqlite3.Error or OSError; the cache turns
both into misses.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from shardfs.formats.ids import ID_SIZE
from shardfs.store.database import Connection
from shardfs.store.segments import MAX_CODEC, MAX_PAYLOAD_SIZE, Record

# Long enough for any transaction of a healthy process, short enough not to be felt as a hang when
# another process is stopped in the middle of one.
_BUSY_TIMEOUT_MS: Final = 2000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS segments (
    id       INTEGER PRIMARY KEY,   -- random, names the file; never used twice
    reserved INTEGER NOT NULL,      -- bytes counted against the limit, however full the file is
    used     INTEGER NOT NULL,      -- time of last use, nanoseconds since 1970
    full     INTEGER NOT NULL       -- 1: takes no more records
);
CREATE TABLE IF NOT EXISTS records (
    id          BLOB PRIMARY KEY,   -- 32 bytes, of the plaintext
    segment     INTEGER NOT NULL,
    offset      INTEGER NOT NULL,
    stored_size INTEGER NOT NULL,
    raw_size    INTEGER NOT NULL,
    codec       INTEGER NOT NULL,
    bases       BLOB NOT NULL       -- none, 32 or 64 bytes
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_segment ON records(segment);
CREATE TABLE IF NOT EXISTS files (
    id     BLOB PRIMARY KEY,        -- 32 bytes, of the manifest or the only chunk
    size   INTEGER NOT NULL,        -- bytes counted against the limit
    used   INTEGER NOT NULL,        -- time of last use, nanoseconds since 1970
    writer INTEGER NOT NULL         -- 0: whole; else random, names the unfinished file
) WITHOUT ROWID;
"""


_RESERVED: Final = (
    "SELECT (SELECT coalesce(sum(reserved), 0) FROM segments) + (SELECT coalesce(sum(size), 0) FROM files)"
)

_Numbers = TypeVar("_Numbers", bound=tuple[int, ...])


class WrongTypesError(sqlite3.DatabaseError):
    """A row holds values that nobody wrote there on purpose."""


class FileRow(NamedTuple):
    """A plain file.

    Attributes:
        id: of the manifest or the only chunk.
        size: bytes.
        writer: 0 when the file is whole; else the number in the name of the unfinished file.
    """

    id: bytes
    size: int
    writer: int


class Item(NamedTuple):
    """What can be given up: a segment or a plain file, and the bytes that count against the limit."""

    what: int | FileRow
    reserved: int


class CacheIndex:
    """One incarnation of the index file.

    Construction creates the file when it is missing; the caller holds the lock that keeps a second
    process from doing the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        path.touch(mode=0o600)
        self._identity = self._file_identity()
        try:
            held = self._connection()
            held.sqlite.execute("PRAGMA journal_mode = WAL")
            held.sqlite.executescript(_SCHEMA)
        except BaseException:
            self.close()
            raise

    def is_current(self) -> bool:
        """False when the file was deleted or replaced since it was opened."""
        try:
            return self._file_identity() == self._identity
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _file_identity(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def _connection(self) -> Connection:
        held: Connection | None = getattr(self._local, "connection", None)
        if held is None:
            held = Connection(sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False))
            held.sqlite.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
            held.sqlite.execute("PRAGMA synchronous = NORMAL")
            held.sqlite.execute("PRAGMA journal_size_limit = 1048576")
            held.sqlite.execute("PRAGMA wal_autocheckpoint = 256")  # pages: a log of about 1 MiB
            self._local.connection = held
        return held

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        held = self._connection()
        return held.sqlite.execute(sql, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        held = self._connection()
        connection = held.sqlite
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            # SQLite rolls some failures back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    def close(self) -> None:
        """Close the connections of all threads; one that is in use, as soon as it is not."""
        held: Connection | None = getattr(self._local, "connection", None)
        if held is not None:
            held.sqlite.close()  # at once, even if an error that is kept for a while has it
        self._local = threading.local()

    def find(self, ident: bytes) -> Record | None:
        """Where a payload lies."""
        sql = "SELECT segment, offset, stored_size, raw_size, codec, bases FROM records WHERE id = ?"
        rows = self._rows(sql, (ident,))
        return _checked(rows[0]) if rows else None

    def insert(self, ident: bytes, record: Record) -> bool:
        """Remember a written record; False when its segment has been given up meanwhile."""
        sql = (
            "INSERT OR REPLACE INTO records"
            " (id, segment, offset, stored_size, raw_size, codec, bases)"
            " SELECT ?, ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM segments WHERE id = ?)"
        )
        with self._transaction() as connection:
            return connection.execute(sql, (ident, *record, record.segment)).rowcount == 1

    def delete(self, ident: bytes) -> None:
        """Forget a record."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM records WHERE id = ?", (ident,))

    def mark_full(self, segment: int) -> None:
        """A segment takes no more records."""
        with self._transaction() as connection:
            connection.execute("UPDATE segments SET full = 1 WHERE id = ?", (segment,))

    def unfinished(self, limit: int) -> list[tuple[int, int]]:
        """(segment, reserved bytes) of segments that still take records, last used first."""
        sql = "SELECT id, reserved FROM segments WHERE full = 0 ORDER BY used DESC LIMIT ?"
        return [_integers(row) for row in self._rows(sql, (limit,))]

    def touch(self, segments: Iterable[tuple[int, int]], files: Iterable[tuple[bytes, int]]) -> None:
        """Move times of last use forward; pairs of (segment or id of a plain file, nanoseconds)."""
        with self._transaction() as connection:
            for table, used in (("segments", segments), ("files", files)):
                sql = f"UPDATE {table} SET used = max(used, ?) WHERE id = ?"
                connection.executemany(sql, [(at, id_) for id_, at in used])

    @contextmanager
    def changing(self) -> Iterator[Change]:
        """One transaction that decides what there is: two processes cannot both take the last room."""
        with self._transaction() as connection:
            yield Change(connection)

    def file(self, id_: bytes) -> FileRow | None:
        """A plain file, whole or not."""
        held = self._connection()
        return _file(held.sqlite, id_)

    def files(self) -> list[FileRow]:
        """All plain files, least recently used first."""
        rows = self._rows("SELECT id, size, writer FROM files ORDER BY used, id")
        return [_checked_file(row) for row in rows]

    def reserved(self) -> int:
        """Bytes counted against the limit."""
        return int(self._rows(_RESERVED)[0][0])

    def totals(self) -> tuple[int, int, int, int, int]:
        """Number of records, bytes of their payloads, number of segments, number of whole plain files, their bytes."""
        sql = (
            "SELECT (SELECT count(*) FROM records),"
            " (SELECT coalesce(sum(stored_size), 0) FROM records),"
            " (SELECT count(*) FROM segments),"
            " (SELECT count(*) FROM files WHERE writer = 0),"
            " (SELECT coalesce(sum(size), 0) FROM files WHERE writer = 0)"
        )
        records, stored, segments, files, file_bytes = self._rows(sql)[0]
        return int(records), int(stored), int(segments), int(files), int(file_bytes)

    def file_size(self) -> int:
        """Bytes of the index on disk, its log included."""
        total = 0
        for suffix in ("", "-wal"):
            try:
                total += Path(f"{self._path}{suffix}").stat().st_size
            except FileNotFoundError:
                continue
        return total


class Change:
    """What can be done within `CacheIndex.changing`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def reserved(self) -> int:
        """Bytes counted against the limit."""
        return int(self._connection.execute(_RESERVED).fetchone()[0])

    def items(self) -> list[Item]:
        """All segments and plain files, least recently used first."""
        segments = self._connection.execute("SELECT used, id, reserved FROM segments").fetchall()
        files = self._connection.execute("SELECT used, id, size, writer FROM files").fetchall()
        found = [(used, Item(id_, reserved)) for used, id_, reserved in map(_integers, segments)]
        found += [(*_integers((used,)), Item(row := _checked_file(rest), row.size)) for used, *rest in files]
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def file(self, id_: bytes) -> FileRow | None:
        """A plain file, whole or not."""
        return _file(self._connection, id_)

    def drop(self, what: int | FileRow) -> None:
        """Forget a segment with its records, or a plain file."""
        if isinstance(what, FileRow):
            self._connection.execute("DELETE FROM files WHERE id = ?", (what.id,))
            return
        self._connection.execute("DELETE FROM records WHERE segment = ?", (what,))
        self._connection.execute("DELETE FROM segments WHERE id = ?", (what,))

    def forget(self, ids: Iterable[bytes]) -> list[Item]:
        """Forget records; returns the segments that hold nothing any more."""
        touched: set[int] = set()
        for id_ in ids:
            row = self._connection.execute("SELECT segment FROM records WHERE id = ?", (id_,)).fetchone()
            if row is not None:
                touched.add(row[0])
                self._connection.execute("DELETE FROM records WHERE id = ?", (id_,))
        empty = "SELECT id, reserved FROM segments WHERE id = ? AND id NOT IN (SELECT segment FROM records)"
        rows = (self._connection.execute(empty, (segment,)).fetchone() for segment in touched)
        return [Item(*_integers(row)) for row in rows if row is not None]

    def add_segment(self, number: int, reserved: int, used: int) -> None:
        """Count a new segment."""
        sql = "INSERT INTO segments (id, reserved, used, full) VALUES (?, ?, ?, 0)"
        self._connection.execute(sql, (number, reserved, used))

    def add_file(self, row: FileRow, used: int) -> None:
        """Count a plain file."""
        sql = "INSERT INTO files (id, size, writer, used) VALUES (?, ?, ?, ?)"
        self._connection.execute(sql, (*row, used))

    def finish_file(self, id_: bytes, used: int) -> None:
        """A plain file is whole."""
        self._connection.execute("UPDATE files SET writer = 0, used = ? WHERE id = ?", (used, id_))


def _file(connection: sqlite3.Connection, id_: bytes) -> FileRow | None:
    row = connection.execute("SELECT id, size, writer FROM files WHERE id = ?", (id_,)).fetchone()
    return None if row is None else _checked_file(row)


def _checked_file(row: Iterable[Any]) -> FileRow:
    """A row of a plain file whose values have the promised types."""
    id_, *numbers = row
    _integers(tuple(numbers))
    if not isinstance(id_, bytes) or len(id_) != ID_SIZE:
        msg = "plain file of the cache index has wrong types"
        raise WrongTypesError(msg)
    return FileRow(id_, *numbers)


def _integers(row: _Numbers) -> _Numbers:
    """A row of numbers that are numbers."""
    if not all(isinstance(number, int) and number >= 0 for number in row):
        msg = "segment of the cache index has wrong types"
        raise WrongTypesError(msg)
    return row


def _checked(row: tuple[Any, ...]) -> Record:
    """A row whose values have the promised types: SQLite stores any type anywhere."""
    *numbers, bases = row
    sound = all(isinstance(n, int) and n >= 0 for n in numbers)
    sound = sound and numbers[2] <= MAX_PAYLOAD_SIZE and numbers[4] <= MAX_CODEC
    if not sound or not (isinstance(bases, bytes) and len(bases) in {0, 32, 64}):
        msg = "record of the cache index has wrong types"
        raise WrongTypesError(msg)
    return Record._make(row)
