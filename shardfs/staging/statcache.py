"""What the files of a work tree held when they were last read, so that unchanged ones are not read again."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs.formats.ids import PackId
from shardfs.formats.tree import FileEntry
from shardfs.staging.ingest import Ingested
from shardfs.staging.nodes import content_key, file_entry
from shardfs.staging.source import Stamp
from shardfs.store.database import immediate, open_database

_log = logging.getLogger(__name__)

FILE_NAME: Final = "worktree.sqlite"
SCHEMA_VERSION: Final = 1
_NO_INODE: Final = -1
_SCHEMA: Final = """
CREATE TABLE files (
    path BLOB PRIMARY KEY,      -- relative to the root, "/" between names
    size INTEGER NOT NULL,      -- bytes
    mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL,
    ino INTEGER NOT NULL,       -- -1: the path is known, the content is not
    content BLOB NOT NULL       -- as in staging: kind and id of chunk or manifest; empty for an empty file
) WITHOUT ROWID;
CREATE TABLE packs (id BLOB PRIMARY KEY) WITHOUT ROWID;
"""


# A row of `files`. A plain tuple: named ones add 40 ms to the loading of 100 000 rows.
_Row = tuple[bytes, int, int, int, int, bytes]


class StatCache:
    """Contents by path, valid while size, times and inode of the file stay. For one thread.

    Losing it costs reading the files again, so a database that is missing, damaged or not writable is no error. It
    empties itself when a pack that was there when it was saved is gone: what it names may have gone with it.
    """

    def __init__(self, path: Path | None, packs: Iterable[PackId] = ()) -> None:
        """Load the cache in the file `path`.

        Args:
            path: of the database; made at the first save. None: remember nothing beyond this object.
            packs: that the store has now.
        """
        self._path = path
        self._packs = frozenset(packs)
        self._rows: dict[bytes, _Row] = {}
        self._dirty: dict[bytes, _Row | None] = {}
        self._usable = True
        if path is not None:
            self._load(path)

    def entry(self, path: bytes, status: os.stat_result, *, executable: bool) -> FileEntry | None:
        """An unchanged file as an entry of its directory; None when it has to be read."""
        content = self.key(path, status)
        if content is None:
            return None
        return file_entry(path.rpartition(b"/")[2], status.st_size, executable, content)

    def key(self, path: bytes, status: os.stat_result) -> bytes | None:
        """The content of an unchanged file in the form of `nodes.content_key`; None when it has to be read."""
        row = self._rows.get(path)
        return row[5] if row is not None and _same(row, status) else None

    def paths(self) -> list[bytes]:
        """Files that were read or written here before, sorted."""
        return sorted(self._rows)

    def learn(self, path: bytes, status: os.stat_result, entry: FileEntry) -> None:
        """Remember a file that was just written with the content of an entry; as `put`."""
        self.put(path, Ingested(entry.size, entry.chunk, entry.manifest, None, Stamp.of(status)))

    def put(self, path: bytes, content: Ingested, now_ns: int | None = None) -> None:
        """Remember the content of a file, read not later than `now_ns` (None: the clock's time).

        Of a file that changed within 20 ms before only the path is remembered: it may change again with no trace in
        its times.
        """
        stamp = content.stamp
        if stamp.is_racy(time.time_ns() if now_ns is None else now_ns) or stamp.size != content.size:
            stamp = stamp._replace(ino=_NO_INODE)
        row = (path, *stamp, content_key(content.entry(b"")))
        if self._rows.get(path) != row:
            self._rows[path] = self._dirty[path] = row

    def distrust(self) -> None:
        """Have this object's user read every file; what is read is remembered as usual."""
        self._rows.clear()

    def forget(self, path: bytes) -> None:
        """Have the file read next time."""
        if self._rows.pop(path, None) is not None:
            self._dirty[path] = None

    def save(self, packs: Iterable[PackId]) -> None:
        """Write what is new; `packs` are those that the store has now.

        Call it when the batch that holds the contents is published, not before.
        """
        self._packs = frozenset(packs)
        if self._path is None or not self._dirty or not self._usable:
            return
        try:
            connection = open_database(self._path)
            try:
                self._write(connection)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            _log.debug("%s is not written: %s", self._path, error)
        self._dirty.clear()

    def _write(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
        gone = [(path,) for path, row in self._dirty.items() if row is None]
        rows = [row for row in self._dirty.values() if row is not None]
        with immediate(connection) as db:
            db.executemany("DELETE FROM files WHERE path = ?", gone)
            db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?)", rows)
            db.executemany("INSERT OR IGNORE INTO packs VALUES (?)", ((pack,) for pack in self._packs))

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        try:
            connection = open_database(path)
            try:
                self._read(connection)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            _log.debug("%s is dropped: %s", path, error)
            self._drop(path)

    def _read(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            self._usable = False  # a newer program's; left to it
        if version != SCHEMA_VERSION:
            return
        packs = {row[0] for row in connection.execute("SELECT id FROM packs")}
        if not packs <= self._packs:
            with immediate(connection) as db:
                db.execute("DELETE FROM files")
                db.execute("DELETE FROM packs")
            return
        # A flipped bit may turn a value into one of another type.
        sql = """
            SELECT path, size, mtime_ns, ctime_ns, ino, content FROM files
            WHERE typeof(path) = 'blob' AND typeof(content) = 'blob'"""
        self._rows = {row[0]: row for row in connection.execute(sql)}

    def _drop(self, path: Path) -> None:
        self._rows.clear()
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


def _same(row: _Row, status: os.stat_result) -> bool:
    return (
        row[1] == status.st_size
        and row[2] == status.st_mtime_ns
        and row[3] == status.st_ctime_ns
        and row[4] == status.st_ino
    )
