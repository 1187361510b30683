"""Modes, times and extended attributes of an area's nodes."""

from __future__ import annotations

import errno
import sqlite3
import time
from typing import Final

from shardfs.errors import AreaError
from shardfs.staging.database import Database, update
from shardfs.staging.namespace import stored
from shardfs.staging.nodes import ROOT, Row
from shardfs.staging.view import View

XATTR_CREATE: Final = 1  # setxattr(2)
XATTR_REPLACE: Final = 2
_MAX_VALUE: Final = 65536  # XATTR_SIZE_MAX of Linux


class Attributes:
    """See the module. Extended attributes live in the area only; commits do not have them."""

    def __init__(self, database: Database, view: View) -> None:
        self._database = database
        self._view = view

    def chmod(self, db: sqlite3.Connection, ino: int, mode: int) -> Row:
        """Set the permission bits; returns the node."""
        row = stored(db, self._view, ino)
        row = row._replace(mode=mode & 0o7777, ctime_ns=time.time_ns())
        update(db, ino, mode=row.mode, ctime_ns=row.ctime_ns)
        if ino != ROOT:
            self._view.settle(db, row, self._view.node(db, row.parent))
        return row

    def utimens(self, db: sqlite3.Connection, ino: int, mtime_ns: int) -> Row:
        """Set the modification time; returns the node."""
        row = stored(db, self._view, ino)
        row = row._replace(mtime_ns=mtime_ns, ctime_ns=time.time_ns())
        update(db, ino, mtime_ns=row.mtime_ns, ctime_ns=row.ctime_ns)
        return row

    def get(self, ino: int, name: bytes) -> bytes:
        """See `Area.get_xattr`."""
        with self._database.read() as db:
            self._view.node(db, ino)
            found = self._value(db, ino, name)
        if found is None:
            raise AreaError(errno.ENODATA, name)
        return found

    def set(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        """See `Area.set_xattr`."""
        if len(value) > _MAX_VALUE:
            raise AreaError(errno.E2BIG, name)
        with self._database.write() as db:
            stored(db, self._view, ino)
            known = self._value(db, ino, name) is not None
            if known and flags & XATTR_CREATE:
                raise AreaError(errno.EEXIST, name)
            if not known and flags & XATTR_REPLACE:
                raise AreaError(errno.ENODATA, name)
            db.execute("INSERT OR REPLACE INTO xattrs (ino, name, value) VALUES (?, ?, ?)", (ino, name, value))

    def names(self, ino: int) -> list[bytes]:
        """See `Area.list_xattrs`."""
        with self._database.read() as db:
            self._view.node(db, ino)
            return [row[0] for row in db.execute("SELECT name FROM xattrs WHERE ino = ? ORDER BY name", (ino,))]

    def remove(self, ino: int, name: bytes) -> None:
        """See `Area.remove_xattr`."""
        with self._database.write() as db:
            if db.execute("DELETE FROM xattrs WHERE ino = ? AND name = ?", (ino, name)).rowcount == 0:
                raise AreaError(errno.ENODATA, name)

    @staticmethod
    def _value(db: sqlite3.Connection, ino: int, name: bytes) -> bytes | None:
        found = db.execute("SELECT value FROM xattrs WHERE ino = ? AND name = ?", (ino, name)).fetchone()
        return None if found is None else bytes(found[0])
