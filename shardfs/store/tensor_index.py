"""Which stored file holds a tensor: a hint that finds bases for new chunks.

`tensors.sqlite` maps a key to a manifest and a range of the file that it rebuilds. Losing it, or a row that names what
is gone, costs bytes in later commits and nothing else: nothing reads content by it. So every failure is a miss.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from shardfs.formats.ids import ID_SIZE, ManifestId
from shardfs.store.database import immediate, open_database

_log = logging.getLogger(__name__)

FILE_NAME: Final = "tensors.sqlite"
SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE tensors (
    key BLOB PRIMARY KEY,
    manifest BLOB NOT NULL,     -- id
    start INTEGER NOT NULL,     -- bytes from the start of the file
    end INTEGER NOT NULL
) WITHOUT ROWID"""
_BATCH: Final = 500  # keys per SELECT


class Place(NamedTuple):
    """Bytes `[start, end)` of the file that a manifest rebuilds."""

    manifest: ManifestId
    start: int
    end: int


class TensorIndex:
    """The places of tensors by key, the newest for each. For one thread; opens the file for each call."""

    def __init__(self, folder: Path) -> None:
        """Use the database in `folder`, which `remember` makes when it is missing."""
        self._path = folder / FILE_NAME

    def find(self, keys: Iterable[bytes]) -> dict[bytes, Place]:
        """The places of those of `keys` that are known."""
        wanted = list(dict.fromkeys(keys))
        found: dict[bytes, Place] = {}
        if not wanted or not self._path.exists():
            return found
        try:
            with closing(open_database(self._path, create=False)) as db:
                for start in range(0, len(wanted), _BATCH):
                    part = wanted[start : start + _BATCH]
                    sql = f"SELECT key, manifest, start, end FROM tensors WHERE key IN ({','.join('?' * len(part))})"
                    found |= {
                        key: Place(ManifestId(m), a, b) for key, m, a, b in db.execute(sql, part) if _sound(m, a, b)
                    }
        except (sqlite3.Error, OSError) as error:
            _log.info("%s: %s; bases are not looked for in other files", self._path, error)
        return found

    def remember(self, places: Mapping[bytes, Place]) -> None:
        """Add places, or move keys to new ones. A file that cannot be used is made anew, one in use is left alone."""
        if not places:
            return
        for again in (True, False):
            try:
                with closing(open_database(self._path)) as db, immediate(db):
                    if db.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
                        db.execute("DROP TABLE IF EXISTS tensors")
                        db.execute(_SCHEMA)
                        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
                    rows = [(key, *place) for key, place in places.items()]
                    db.executemany("INSERT OR REPLACE INTO tensors VALUES (?, ?, ?, ?)", rows)
            except (sqlite3.Error, OSError) as error:
                _log.info("%s: %s", self._path, error)
                if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                    return
                if again and isinstance(error, sqlite3.DatabaseError):
                    self._remove()
            else:
                return

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                Path(f"{self._path}{suffix}").unlink()


def _sound(manifest: object, start: object, end: object) -> bool:
    """Whether a row has the promised types: SQLite stores any type anywhere."""
    return isinstance(manifest, bytes) and len(manifest) == ID_SIZE and isinstance(start, int) and isinstance(end, int)
