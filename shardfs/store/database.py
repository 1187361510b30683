"""What all SQLite databases of shardfs have in common: pragmas, write transactions, errors.

Rules: busy_timeout before anything else, WAL, BEGIN IMMEDIATE for writes.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from shardfs.errors import IndexCorruptedError, OutOfSpaceError, ReadOnlyError, StoreError

BUSY_TIMEOUT_MS: Final = 30_000
NO_ROOM: Final = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP})
"""Extended codes of a full disk, when there is no room for the WAL's index."""


class Connection:
    """A connection that is closed when nobody holds it any more.

    Who runs a statement on `sqlite` holds this object until the rows are there. Who has to close the connections of
    other threads lets go of them: SQLite frees what a running statement uses, and the process crashes.
    """

    def __init__(self, sqlite: sqlite3.Connection) -> None:
        self.sqlite = sqlite

    def __del__(self) -> None:
        self.sqlite.close()


def open_database(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """A connection in autocommit mode with the pragmas that all databases of shardfs use.

    Args:
        path: the file.
        create: make the file when it is missing; else that is an error.
    """
    uri = f"file:{quote(bytes(path.absolute()))}?mode={'rwc' if create else 'rw'}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        with suppress(sqlite3.OperationalError):  # a read-only directory keeps the mode that the file has
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
    except UnicodeDecodeError as error:  # SQLite quotes a damaged schema, and Python cannot read the quotation
        connection.close()
        damage = sqlite3.DatabaseError(f"malformed database schema: {error}")
        damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise damage from error
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """One write transaction; rolled back when the block raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite rolls some failures back by itself
            connection.execute("ROLLBACK")
        raise


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn sqlite3 errors into the store's errors.

    Raises:
        OutOfSpaceError, ReadOnlyError, StoreError, IndexCorruptedError: by SQLite's result code.
    """
    try:
        yield
    except sqlite3.ProgrammingError:
        raise
    except sqlite3.Error as error:
        extended = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        code = extended & 0xFF
        msg = f"{path}: {error}"
        if code == sqlite3.SQLITE_FULL or extended in NO_ROOM:
            raise OutOfSpaceError(f"{msg}; free some space, nothing stored is lost") from error
        if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
            raise ReadOnlyError(f"{msg}; the store is not writable") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise IndexCorruptedError(f"{msg}; run `shardfs doctor --rebuild-index`") from error
        raise StoreError(msg) from error
