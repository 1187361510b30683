"""The file of the index: made whole or not at all, noticed when it is replaced, one connection per thread.

Spec: docs/design/format/index.md. Who makes or replaces the file holds `flock(LOCK_EX)` on its directory, who opens
it holds `LOCK_SH`: nobody ever opens a new database beside the write-ahead log of an old one. Both last milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from shardfs.errors import IndexCorruptedError, StoreError
from shardfs.store.atomic import writing
from shardfs.store.database import Connection, database_errors, open_database

SCHEMA_VERSION: Final = 2
_PROBES: Final = (
    "SELECT pack, id, size FROM packs LIMIT 0",
    "SELECT pack, place FROM copies LIMIT 0",
    "SELECT id, pack FROM damaged LIMIT 0",
    "SELECT id, pack, kind, codec, offset, stored_size, raw_size, bases FROM entries LIMIT 0",
)
"""A flipped bit in the text of the schema renames a table or a column; no check of SQLite's finds that."""
_TRIES: Final = 3  # openings that may fail because the file was deleted meanwhile

Fill = Callable[[sqlite3.Connection], None]


class _Connection(Connection):
    """A connection to the file of an identity."""

    def __init__(self, sqlite: sqlite3.Connection, identity: tuple[int, int] | None) -> None:
        super().__init__(sqlite)
        self.identity = identity


class IndexFile:
    """One database file and the connections of this process to it. Safe to share between threads."""

    _local: threading.local
    _guard: threading.Lock
    _connections: weakref.WeakSet[_Connection]

    def __init__(self, path: Path, tmp: Path, fill: Fill, *, anew: bool = False) -> None:
        """Open the file at `path`; make it when it is missing.

        Args:
            path: the database.
            tmp: directory for an unfinished file, on the same file system.
            fill: puts rows into a database that is being made.
            anew: make it again even if it is there.

        Raises:
            IndexCorruptedError: not a readable database of this version. ReadOnlyError, OutOfSpaceError, StoreError.
        """
        self.path = path
        self._tmp = tmp
        self._fill = fill
        self._forget_connections()
        _instances.add(self)
        if anew:
            self.replace()
        self.connection()

    def connection(self) -> Connection:
        """This thread's connection to the file that is there now.

        Raises:
            IndexCorruptedError, ReadOnlyError, OutOfSpaceError, StoreError: as the constructor.
        """
        found: _Connection | None = getattr(self._local, "connection", None)
        if found is None or found.identity != _identity(self.path):
            self._local.connection = None  # closes the old one
            found = self._open()
            with self._guard:
                self._connections.add(found)
            self._local.connection = found
        return found

    def is_current(self) -> bool:
        """Whether this thread's connection is to the file that is there now."""
        found: _Connection | None = getattr(self._local, "connection", None)
        return found is not None and found.identity == _identity(self.path)

    def replace(self) -> None:
        """Make the file again; every process goes on with the new one at its next query. Errors as the constructor."""
        with _directory_lock(self.path, fcntl.LOCK_EX):
            self._make()

    def close(self) -> None:
        """Close the connections of all threads; one that is in use, as soon as it is not."""
        found: _Connection | None = getattr(self._local, "connection", None)
        if found is not None:
            found.sqlite.close()  # at once, even if an error that is kept for a while has it
        with self._guard:
            self._connections = weakref.WeakSet()
            self._local = threading.local()

    def _open(self) -> _Connection:
        for _ in range(_TRIES):
            before = _identity(self.path)
            try:
                return self._open_once()
            except (StoreError, IndexCorruptedError):
                if before is not None and before == _identity(self.path):
                    raise
        return self._open_once()

    def _open_once(self) -> _Connection:
        with writing(f"cannot open {self.path}"), database_errors(self.path):
            with _directory_lock(self.path, fcntl.LOCK_SH):
                if _size(self.path):
                    return self._checked()
            with _directory_lock(self.path, fcntl.LOCK_EX):
                if not _size(self.path):  # nobody was faster; an empty file is what a power cut may leave
                    self._make()
                return self._checked()

    def _checked(self) -> _Connection:
        identity = _identity(self.path)  # before: if the file is replaced meanwhile, the next query notices
        found = _Connection(open_database(self.path, create=False), identity)
        try:
            version = found.sqlite.execute("PRAGMA user_version").fetchone()[0]
            if version == SCHEMA_VERSION:
                for probe in _PROBES:
                    found.sqlite.execute(probe)
        except sqlite3.Error:
            found.sqlite.close()
            raise
        if version != SCHEMA_VERSION:
            found.sqlite.close()
            msg = f"index {self.path} has schema {version}, this program knows {SCHEMA_VERSION}"
            raise IndexCorruptedError(f"{msg}; run `shardfs doctor --rebuild-index`")
        if _is_refused(found.sqlite, self.path):
            found.sqlite.close()
            msg = f"index {self.path} has a damaged header; run `shardfs doctor --rebuild-index`"
            raise IndexCorruptedError(msg)
        return found

    def _make(self) -> None:
        temp = self._tmp / f"index-{os.getpid()}-{os.urandom(8).hex()}"
        with writing(f"cannot make {self.path}"), database_errors(self.path):
            try:
                self._tmp.mkdir(exist_ok=True)
                db = open_database(temp)
                try:
                    create_schema(db)
                    self._fill(db)
                finally:
                    db.close()
                # A log of the old file would be taken for one of the new file.
                _remove(self.path, "-wal", "-shm")
                temp.replace(self.path)
            finally:
                _remove(temp, "", "-wal", "-shm", "-journal")

    def _forget_connections(self) -> None:
        self._local = threading.local()
        self._guard = threading.Lock()
        self._connections = weakref.WeakSet()

    def leave_to_parent(self) -> None:
        """In a forked child: never touch the parent's connections again, not even to close them."""
        _abandoned.extend(self._connections)
        self._forget_connections()


def create_schema(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database."""
    from sqlite_utils import Database

    db = Database(connection)
    db["packs"].create({"pack": int, "id": bytes, "size": int}, pk="pack")  # type: ignore[union-attr]
    db["packs"].create_index(["id"], unique=True)  # type: ignore[union-attr]
    # sqlite-utils has no WITHOUT ROWID, which saves these two a second tree of their keys.
    connection.execute(
        "CREATE TABLE copies (pack INTEGER NOT NULL, place TEXT NOT NULL, PRIMARY KEY (pack, place)) WITHOUT ROWID"
    )
    connection.execute(
        "CREATE TABLE entries (id BLOB NOT NULL, pack INTEGER NOT NULL, kind INTEGER NOT NULL,"
        " codec INTEGER NOT NULL, offset INTEGER NOT NULL, stored_size INTEGER NOT NULL,"
        " raw_size INTEGER NOT NULL, bases BLOB NOT NULL, PRIMARY KEY (id, pack)) WITHOUT ROWID"
    )
    connection.execute("CREATE INDEX entries_by_pack ON entries (pack)")
    connection.execute(
        "CREATE TABLE damaged (id BLOB NOT NULL, pack INTEGER NOT NULL, PRIMARY KEY (id, pack)) WITHOUT ROWID"
    )
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


@contextmanager
def _directory_lock(path: Path, operation: int) -> Iterator[None]:
    with writing(f"cannot open {path}"):
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with writing(f"cannot lock {path.parent}"):
            fcntl.flock(fd, operation)
        yield
    finally:
        os.close(fd)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - once per query; Path.stat costs 1 us more
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_refused(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether SQLite refuses to write a file that may be written: a flipped bit in the header makes it look newer.

    SQLite is asked, the header is not read: closing the file would drop the POSIX locks of all connections that this
    process has to it, and the last connection of another process would delete the log that they use.
    """
    timeout = connection.execute("PRAGMA busy_timeout").fetchone()[0]
    connection.execute("PRAGMA busy_timeout = 0")
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    except sqlite3.OperationalError as error:  # usually: another process is writing
        return error.sqlite_errorcode == sqlite3.SQLITE_READONLY and os.access(path, os.W_OK)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.execute(f"PRAGMA busy_timeout = {timeout}")
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _remove(path: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


_instances: weakref.WeakSet[IndexFile] = weakref.WeakSet()
_abandoned: list[_Connection] = []  # SQLite forbids any use of a connection on the other side of a fork


def _after_fork() -> None:
    for instance in list(_instances):
        instance.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)
