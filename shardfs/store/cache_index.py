"""The SQLite index of the cache: which payload lies where, and which segments to give up first.

Spec: docs/design/format/cache.md. Every method raises sqlite3.Error or OSError; the cache turns
both into misses.
"""

from __future__ import annotations

import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

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
"""


class WrongTypesError(sqlite3.DatabaseError):
    """A row holds values that nobody wrote there on purpose."""


class _Connection:
    """A connection that is closed with the thread that owns it."""

    def __init__(self, path: Path) -> None:
        # Any thread may close it; only its own thread uses it.
        self.sqlite = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self.sqlite.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")

    def __del__(self) -> None:
        if hasattr(self, "sqlite"):
            self.sqlite.close()


class CacheIndex:
    """One incarnation of the index file.

    Construction creates the file when it is missing; the caller holds the lock that keeps a second
    process from doing the same.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: weakref.WeakSet[_Connection] = weakref.WeakSet()
        path.touch(mode=0o600)
        self._identity = self._file_identity()
        connection = self._connection()
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(_SCHEMA)

    def is_current(self) -> bool:
        """False when the file was deleted or replaced since it was opened."""
        try:
            return self._file_identity() == self._identity
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _file_identity(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_dev, status.st_ino

    def _connection(self) -> sqlite3.Connection:
        connection: _Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = _Connection(self._path)
            connection.sqlite.execute("PRAGMA synchronous = NORMAL")
            connection.sqlite.execute("PRAGMA journal_size_limit = 1048576")
            connection.sqlite.execute("PRAGMA wal_autocheckpoint = 256")  # pages: a log of about 1 MiB
            self._connections.add(connection)
            self._local.connection = connection
        return connection.sqlite

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection()
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
        """Close the connections of all threads."""
        for connection in list(self._connections):
            connection.sqlite.close()
        self._local = threading.local()

    def find(self, ident: bytes) -> Record | None:
        """Where a payload lies."""
        sql = "SELECT segment, offset, stored_size, raw_size, codec, bases FROM records WHERE id = ?"
        row = self._connection().execute(sql, (ident,)).fetchone()
        return None if row is None else _checked(row)

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
        return [_integers(row) for row in self._connection().execute(sql, (limit,))]

    def touch(self, used: Iterable[tuple[int, int]]) -> None:
        """Move the time of last use of segments forward; pairs of (segment, nanoseconds)."""
        sql = "UPDATE segments SET used = max(used, ?) WHERE id = ?"
        with self._transaction() as connection:
            connection.executemany(sql, [(at, segment) for segment, at in used])

    def give_up(
        self,
        enough: Callable[[int], bool],
        remove: Callable[[int], None],
        add: tuple[int, int, int] | None = None,
    ) -> list[int]:
        """Forget segments, least recently used first, until `enough(reserved bytes left)`.

        `remove` deletes the file before the row goes: after a crash in between, reads of that
        segment are misses and the next call finishes the work. The other order would leave files
        that nobody counts.

        `add`, a new segment as (number, reserved bytes, time of use), is counted in the same
        transaction, so two processes cannot both take the last room.

        Returns:
            The segments that went.
        """
        gone: list[int] = []
        with self._transaction() as connection:
            sql = "SELECT id, reserved FROM segments ORDER BY used, id"
            rows = [_integers(row) for row in connection.execute(sql)]
            left = sum(reserved for _, reserved in rows)
            for segment, reserved in rows:
                if enough(left):
                    break
                remove(segment)
                connection.execute("DELETE FROM records WHERE segment = ?", (segment,))
                connection.execute("DELETE FROM segments WHERE id = ?", (segment,))
                left -= reserved
                gone.append(segment)
            if add is not None:
                sql = "INSERT INTO segments (id, reserved, used, full) VALUES (?, ?, ?, 0)"
                connection.execute(sql, add)
        return gone

    def reserved(self) -> int:
        """Bytes counted against the limit."""
        sql = "SELECT coalesce(sum(reserved), 0) FROM segments"
        return int(self._connection().execute(sql).fetchone()[0])

    def totals(self) -> tuple[int, int, int]:
        """Number of records, bytes of their payloads, number of segments."""
        sql = (
            "SELECT (SELECT count(*) FROM records),"
            " (SELECT coalesce(sum(stored_size), 0) FROM records),"
            " (SELECT count(*) FROM segments)"
        )
        records, stored, segments = self._connection().execute(sql).fetchone()
        return int(records), int(stored), int(segments)

    def file_size(self) -> int:
        """Bytes of the index on disk, its log included."""
        total = 0
        for suffix in ("", "-wal"):
            try:
                total += Path(f"{self._path}{suffix}").stat().st_size
            except FileNotFoundError:
                continue
        return total


def _integers(row: tuple[int, int]) -> tuple[int, int]:
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
