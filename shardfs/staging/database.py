"""`area.sqlite`: connections, transactions, and the few statements that everything else is made of.

Rules: busy_timeout before anything else, WAL, BEGIN IMMEDIATE for writes, a connection is used by one thread at a
time. Ordinary writes do not wait for the disk (they survive kill -9); `durable` ones make themselves and all
before them survive a power cut.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from shardfs.errors import AreaError, OutOfSpaceError, StoreError
from shardfs.staging import schema
from shardfs.staging.nodes import NodeKind, Row
from shardfs.store.database import NO_ROOM

_log = logging.getLogger(__name__)

BUSY_TIMEOUT_MS: Final = 30_000
_CHECKPOINT_PAGES: Final = 4000  # 16 MiB of WAL: at the default of 1000 pages every 250th create waits for the disk
_LOG_ROOM: Final = 256 << 10  # bytes; a removal logs a handful of 4 KiB pages
_SHRINK_PAGES: Final = 256  # 1 MiB
_PAGES: Final = ("freelist_count", "page_count")
_ERRNO: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_BUSY: errno.EBUSY,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}

_COLUMNS: Final = ", ".join(Row._fields)
_SELECT: Final = f"SELECT {_COLUMNS} FROM nodes"
_INSERT: Final = f"INSERT INTO nodes ({_COLUMNS}) VALUES ({', '.join('?' * len(Row._fields))})"


class Database:
    """Transactions on one area. Safe to share between threads; not across fork."""

    def __init__(self, path: Path) -> None:
        """Open or create the database.

        Raises:
            StoreError: the file is damaged, of a newer version, or cannot be opened.
            OutOfSpaceError: the disk is full.
        """
        self._path = path
        self._idle: deque[sqlite3.Connection] = deque()
        self._all: list[sqlite3.Connection] = []
        self._guard = threading.Lock()
        self._writing = threading.Lock()
        try:
            self._create()
            self._reserve_log()
        except (sqlite3.Error, UnicodeDecodeError, AreaError) as error:
            self.close()
            msg = f"cannot open the staging area {path}: {error}"
            if isinstance(error, AreaError) and error.errno == errno.ENOSPC:
                msg = f"cannot open {path}: {error.strerror}; free some space, nothing stored is lost"
                raise OutOfSpaceError(msg) from error
            raise StoreError(msg) from error

    def read(self) -> Reading:
        """A transaction that sees one state; use as context manager, gives the connection."""
        return Reading(self)

    def write(self, *, durable: bool = False) -> Writing:
        """A write transaction; use as context manager, gives the connection. Rolled back when the block raises."""
        return Writing(self, self._writing, durable=durable)

    def shrink(self) -> None:
        """Give the room of deleted rows back to the disk, if it is most of the file and more than 1 MiB.

        No error when that fails (a reader elsewhere, a full disk): the room is used again or given back next time.
        """
        with self._writing:
            connection = self.take()
            try:
                free, pages = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in _PAGES)
                if free > max(_SHRINK_PAGES, pages // 2):
                    connection.execute("VACUUM")
            except sqlite3.Error as error:
                _log.debug("%s is not made smaller: %s", self._path, error)
            finally:
                self.give(connection)

    def restart_log(self) -> bool:
        """Have the next transactions use the room that the log has, even on a full disk; whether they can."""
        with self._writing:
            connection = self.take()
            try:
                return not connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()[0]
            except sqlite3.Error as error:
                _log.debug("the log of %s is not started over: %s", self._path, error)
                return False
            finally:
                self.give(connection)

    def close(self) -> None:
        """Close all connections; nothing may be running."""
        with self._guard:
            self._idle.clear()
            for connection in self._all:
                with suppress(sqlite3.Error):
                    connection.close()
            self._all.clear()

    def take(self) -> sqlite3.Connection:
        """An idle connection; give it back with `give`."""
        with suppress(IndexError):
            return self._idle.pop()
        connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_MS / 1000, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        with self._guard:
            self._all.append(connection)
        return connection

    def give(self, connection: sqlite3.Connection) -> None:
        """Put a connection back."""
        self._idle.append(connection)

    def error(self, error: sqlite3.Error) -> AreaError:
        """The errno of a database error."""
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        number = errno.ENOSPC if code in NO_ROOM else _ERRNO.get(code & 0xFF, errno.EIO)
        return AreaError(number, str(self._path))

    def _create(self) -> None:
        with self.read() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > schema.VERSION:
            msg = f"schema {version} is newer than this program's {schema.VERSION}"
            raise sqlite3.DatabaseError(msg)
        if version == schema.VERSION:
            return
        with self.write() as db:
            for statement in schema.statements(db.execute("PRAGMA user_version").fetchone()[0]):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {schema.VERSION}")
        self.restart_log()  # the tables have their pages: `restart_log` on a full disk needs no new ones

    def _reserve_log(self) -> None:
        """Give the log room before anything is in it."""
        with suppress(OSError):
            fd = os.open(f"{self._path}-wal", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.posix_fallocate(fd, 0, _LOG_ROOM)
            finally:
                os.close(fd)


class Reading:
    """See `Database.read`."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._connection = self._database.take()
            self._connection.execute("BEGIN")
        except sqlite3.Error as error:
            raise self._database.error(error) from error
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._connection.execute("COMMIT")
        except sqlite3.Error:
            self._connection.rollback()
        self._database.give(self._connection)
        if isinstance(error, sqlite3.Error):
            raise self._database.error(error) from error


class Writing:
    """See `Database.write`."""

    __slots__ = ("_connection", "_database", "_durable", "_lock")

    def __init__(self, database: Database, lock: threading.Lock, *, durable: bool) -> None:
        self._database = database
        self._lock = lock
        self._durable = durable

    def __enter__(self) -> sqlite3.Connection:
        # Threads of this process queue here in order; SQLite's own waiting sleeps and is unfair.
        self._lock.acquire()
        try:
            self._connection = self._database.take()
            if self._durable:
                self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("BEGIN IMMEDIATE")
        except BaseException as error:
            self._lock.release()
            if isinstance(error, sqlite3.Error):
                raise self._database.error(error) from error
            raise
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        try:
            if error is None:
                connection.execute("COMMIT")
        except sqlite3.Error as failure:
            error = failure
        finally:
            if connection.in_transaction:
                connection.rollback()
            if self._durable:
                connection.execute("PRAGMA synchronous = NORMAL")
            self._database.give(connection)
            self._lock.release()
        if isinstance(error, sqlite3.Error):
            raise self._database.error(error) from error


def row_at(db: sqlite3.Connection, ino: int) -> Row | None:
    """The row of an inode number."""
    found = db.execute(_SELECT + " WHERE ino = ?", (ino,)).fetchone()
    return None if found is None else Row._make(found)


def row_named(db: sqlite3.Connection, parent: int, name: bytes) -> Row | None:
    """The row of a name in a directory, whiteouts included."""
    found = db.execute(_SELECT + " WHERE parent = ? AND name = ?", (parent, name)).fetchone()
    return None if found is None else Row._make(found)


def rows_in(db: sqlite3.Connection, parent: int) -> list[Row]:
    """All rows of a directory, whiteouts included."""
    return [Row._make(found) for found in db.execute(_SELECT + " WHERE parent = ?", (parent,))]


def names_with_rows(db: sqlite3.Connection, parent: int, names: list[bytes]) -> set[bytes]:
    """Those of some names in a directory, at most 30 000, that have a row, whiteouts included."""
    sql = f"SELECT name FROM nodes WHERE parent = ? AND name IN ({','.join('?' * len(names))})"
    return {row[0] for row in db.execute(sql, (parent, *names))}


def rows_where(db: sqlite3.Connection, condition: str) -> list[Row]:
    """All rows that meet a constant condition."""
    return [Row._make(found) for found in db.execute(f"{_SELECT} WHERE {condition}")]


def has_changes(db: sqlite3.Connection, directory: int) -> bool:
    """Whether a row below a directory says something else than the base."""
    pending = [directory]
    while pending:
        for row in rows_in(db, pending.pop()):
            if not row.settled:
                return True
            if row.kind == NodeKind.DIR:
                pending.append(row.ino)
    return False


def insert(db: sqlite3.Connection, row: Row) -> None:
    """Store a row in place of a whiteout of the same name, if there is one."""
    db.execute("DELETE FROM nodes WHERE parent = ? AND name = ? AND kind = 0", (row.parent, row.name))
    db.execute(_INSERT, row)


def insert_all(db: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """Store rows whose names have none, not even a whiteout."""
    db.executemany(_INSERT, rows)


def update(db: sqlite3.Connection, ino: int, /, **columns: object) -> None:
    """Change columns of one row."""
    assignments = ", ".join(f"{name} = ?" for name in columns)
    db.execute(f"UPDATE nodes SET {assignments} WHERE ino = ?", (*columns.values(), ino))


def delete(db: sqlite3.Connection, ino: int) -> None:
    """Delete a row and its extended attributes."""
    db.execute("DELETE FROM nodes WHERE ino = ?", (ino,))
    db.execute("DELETE FROM xattrs WHERE ino = ?", (ino,))


def fact(db: sqlite3.Connection, key: str) -> int:
    """A number of the table `facts`; 0 when it was never set."""
    found = db.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
    return 0 if found is None else int(found[0])


def set_fact(db: sqlite3.Connection, key: str, value: int) -> None:
    """Store a number of the table `facts`."""
    db.execute("INSERT OR REPLACE INTO facts (key, value) VALUES (?, ?)", (key, value))
