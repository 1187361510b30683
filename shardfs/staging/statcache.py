"""What the files of a work tree held when they were last read, so that unchanged ones are not read again.

One record per directory, in a form that is compared in bulk: 100 000 unchanged files are proven unchanged by comparing
the bytes of 100 records. Spec: docs/design/staging.md, "The stat cache".
"""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import struct
import time
from array import array
from collections.abc import Iterable, Mapping, Set
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from shardfs.formats.ids import ID_SIZE, PackId, TreeId
from shardfs.formats.tree import FileEntry
from shardfs.staging.ingest import Ingested
from shardfs.staging.nodes import content_key, file_entry
from shardfs.staging.scan import Folder
from shardfs.staging.source import Stamp
from shardfs.store.database import immediate, open_database

_log = logging.getLogger(__name__)

FILE_NAME: Final = "worktree.sqlite"
SCHEMA_VERSION: Final = 2
_SCHEMA: Final = """
DROP TABLE IF EXISTS files;  -- of version 1
DROP TABLE IF EXISTS packs;
CREATE TABLE folders (
    path BLOB PRIMARY KEY,    -- relative to the root, "/" between names
    names BLOB NOT NULL,      -- of files and links, NUL between them
    stamps BLOB NOT NULL,     -- of each: size, mtime, ctime and inode number, 8 bytes each; inode -1: not to be trusted
    contents BLOB NOT NULL,   -- of each: 33 bytes, kind and id of chunk or manifest; zeros for an empty file
    tree BLOB NOT NULL,       -- a tree that has these files and links and no others; empty when none is known
    below BLOB NOT NULL,      -- the directories of that tree: id, name, NUL
    digest BLOB NOT NULL      -- BLAKE3 of the columns before
);
CREATE TABLE packs (id BLOB PRIMARY KEY) WITHOUT ROWID;
"""
_COLUMNS: Final = "names, stamps, contents, tree, below, digest"
_NO_INODE: Final = -1
_STAMP: Final = struct.Struct("=4q")
_FIELDS: Final = attrgetter("st_size", "st_mtime_ns", "st_ctime_ns", "st_ino")  # in the order of Stamp
_CONTENT_SIZE: Final = 1 + ID_SIZE
_LINK: Final = b"L".ljust(_CONTENT_SIZE, b"\0")

_File = tuple[bytes, bytes]  # its stamp and its content, as they are stored
_Files = dict[bytes, _File]  # by name


class _Record(NamedTuple):
    """One directory, as the table `folders` has it."""

    names: bytes
    stamps: bytes
    contents: bytes
    tree: bytes = b""
    below: bytes = b""

    @classmethod
    def of(cls, files: Mapping[bytes, _File]) -> _Record:
        names = sorted(files)
        stamps, contents = (b"".join(files[name][part] for name in names) for part in (0, 1))
        return cls(b"\0".join(names), stamps, contents)

    def files(self) -> _Files:
        if not self.stamps:
            return {}
        files = zip(_pieces(self.stamps, _STAMP.size), _pieces(self.contents, _CONTENT_SIZE), strict=True)
        return dict(zip(self.names.split(b"\0"), files, strict=True))

    def digest(self, path: bytes) -> bytes:
        return blake3(b"".join(len(part).to_bytes(8, "little") + part for part in (path, *self))).digest()


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
        self._digests: dict[bytes, bytes] = {}  # of the records as they were loaded, by directory
        self._records: dict[bytes, _Record] = {}  # of directories without changes
        self._files: dict[bytes, _Files] = {}  # taken out of their record, with the changes
        self._changes: dict[bytes, dict[bytes, _File | None]] = {}  # not saved yet; None: forget the file
        self._settled: set[bytes] = set()  # directories whose records are not saved yet
        self._usable = True
        if path is not None:
            self._load(path)

    # File by file

    def entry(self, path: bytes, status: os.stat_result, *, executable: bool) -> FileEntry | None:
        """An unchanged file as an entry of its directory; None when it has to be read."""
        content = self.key(path, status)
        if content is None:
            return None
        return file_entry(path.rpartition(b"/")[2], status.st_size, executable, content)

    def key(self, path: bytes, status: os.stat_result) -> bytes | None:
        """The content of an unchanged file in the form of `nodes.content_key`; None when it has to be read."""
        folder, _, name = path.rpartition(b"/")
        file = self._folder(folder).get(name)
        if file is None or file[1] == _LINK or file[0] != _stamp(_FIELDS(status)):
            return None
        return file[1] if file[1][0] else b""

    def folders(self) -> Set[bytes]:
        """Directories with files that were read or written here before."""
        return self._records.keys() | self._files.keys()

    def names(self, folder: bytes) -> Set[bytes]:
        """Names in a directory of files that were read or written here before."""
        return self._folder(folder).keys()

    def learn(self, path: bytes, status: os.stat_result, entry: FileEntry) -> None:
        """Remember a file that was just written with the content of an entry; as `put`."""
        self.put(path, Ingested(entry.size, entry.chunk, entry.manifest, None, Stamp.of(status)))

    def put(self, path: bytes, content: Ingested, now_ns: int | None = None) -> None:
        """Remember the content of a file, read not later than `now_ns` (None: the clock's time).

        Of a file that changed within 20 ms before only the path is remembered: it may change again with no trace in
        its times.
        """
        stamp = content.stamp
        if stamp.size != content.size or stamp.is_racy(time.time_ns() if now_ns is None else now_ns):
            stamp = stamp._replace(ino=_NO_INODE)
        self._change(path, (_stamp(stamp), content_key(content).ljust(_CONTENT_SIZE, b"\0")))

    def forget(self, path: bytes) -> None:
        """Have the file read next time."""
        self._change(path, None)

    def distrust(self) -> None:
        """Have this object's user read every file; what is read is remembered as usual."""
        self._digests.clear()
        self._records.clear()
        self._files.clear()

    # Whole directories

    def is_settled(self, folder: Folder, tree: TreeId) -> bool:
        """Whether the files and links of a directory are unchanged and are those of a tree, no more and no less."""
        record = self._records.get(folder.path)
        return (
            record is not None
            and record.tree == tree
            and record.stamps == _stamps(folder.statuses)
            and record.names == folder.joined_names()
        )

    def below(self, path: bytes, tree: TreeId) -> dict[bytes, TreeId] | None:
        """The directories in the tree that the directory at `path` was settled with; None if it was another."""
        record = self._records.get(path)
        if record is None or record.tree != tree:
            return None
        found: dict[bytes, TreeId] = {}
        start = 0
        while start < len(record.below):
            end = record.below.index(b"\0", start + ID_SIZE)
            found[record.below[start + ID_SIZE : end]] = TreeId(record.below[start : start + ID_SIZE])
            start = end + 1
        return found

    def settle(self, folder: Folder, tree: TreeId, contents: Iterable[bytes], below: Mapping[bytes, TreeId]) -> None:
        """Remember that the files and links of a directory are those of a tree, and forget others in it.

        Args:
            folder: with statuses that are not older than what is known of the contents, none of them racy.
            tree: of the directory.
            contents: of each file in the form of `nodes.content_key`; of a link anything.
            below: the directories of the tree.
        """
        stored = (
            _LINK if stat.S_ISLNK(status.st_mode) else content.ljust(_CONTENT_SIZE, b"\0")
            for content, status in zip(contents, folder.statuses, strict=True)
        )
        self._records[folder.path] = _Record(
            folder.joined_names(),
            _stamps(folder.statuses),
            b"".join(stored),
            tree,
            b"".join(id_ + name + b"\0" for name, id_ in below.items()),
        )
        self._files.pop(folder.path, None)
        self._changes.pop(folder.path, None)
        self._settled.add(folder.path)

    # The database

    def save(self, packs: Iterable[PackId]) -> None:
        """Write what is new; `packs` are those that the store has now.

        Call it when the batch that holds the contents is published, not before.
        """
        self._packs = frozenset(packs)
        if self._path is None or not (self._changes or self._settled) or not self._usable:
            return
        try:
            connection = open_database(self._path)
            try:
                self._write(connection)
            finally:
                connection.close()
        except (sqlite3.Error, OSError) as error:
            _log.debug("%s is not written: %s", self._path, error)
        self._changes.clear()
        self._settled.clear()

    def _folder(self, path: bytes) -> _Files:
        files = self._files.get(path)
        if files is None:
            record = self._records.get(path)
            files = self._files[path] = record.files() if record is not None else {}
        return files

    def _change(self, path: bytes, file: _File | None) -> None:
        folder, _, name = path.rpartition(b"/")
        files = self._folder(folder)
        if files.get(name) == file:
            return
        self._records.pop(folder, None)
        self._settled.discard(folder)
        self._changes.setdefault(folder, {})[name] = file
        if file is None:
            del files[name]
        else:
            files[name] = file

    def _write(self, connection: sqlite3.Connection) -> None:
        if connection.execute("PRAGMA user_version").fetchone()[0] != SCHEMA_VERSION:
            connection.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT")
        with immediate(connection) as db:
            records = {path: _merged(_stored(db, path), changes) for path, changes in self._changes.items()}
            for path in self._settled:
                stored = _stored(db, path)
                # Another process may have learned about other files meanwhile; the comparison can be made again.
                if (None if stored is None else stored.digest(path)) == self._digests.get(path):
                    records[path] = self._records[path]
            rows = ((path, *record, record.digest(path)) for path, record in records.items())
            db.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
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
                db.execute("DELETE FROM folders")
                db.execute("DELETE FROM packs")
            return
        for path, *columns, digest in connection.execute(f"SELECT path, {_COLUMNS} FROM folders"):
            record = _sound(path, columns, digest)
            if record is not None:
                self._records[path] = record
                self._digests[path] = digest

    def _drop(self, path: Path) -> None:
        self._records.clear()
        self._digests.clear()
        for suffix in ("", "-wal", "-shm"):
            with suppress(OSError):
                path.with_name(path.name + suffix).unlink(missing_ok=True)


def _stored(db: sqlite3.Connection, path: bytes) -> _Record | None:
    row = db.execute(f"SELECT {_COLUMNS} FROM folders WHERE path = ?", (path,)).fetchone()
    return None if row is None else _sound(path, row[:-1], row[-1])


def _sound(path: bytes, columns: Iterable[bytes], digest: bytes) -> _Record | None:
    """A record as it was written; None when a bit of it flipped."""
    record = _Record._make(columns)
    sound = all(isinstance(part, bytes) for part in (path, *record)) and record.digest(path) == digest
    return record if sound else None


def _merged(record: _Record | None, changes: Mapping[bytes, _File | None]) -> _Record:
    files = record.files() if record is not None else {}
    for name, file in changes.items():
        if file is None:
            files.pop(name, None)
        else:
            files[name] = file
    return _Record.of(files)


def _pieces(joined: bytes, size: int) -> list[bytes]:
    return [joined[start : start + size] for start in range(0, len(joined), size)]


def _stamps(statuses: Iterable[os.stat_result]) -> bytes:
    """The stamps of many files, one behind the other."""
    try:
        return array("q", chain.from_iterable(map(_FIELDS, statuses))).tobytes()
    except OverflowError:
        return b"".join(_stamp(_FIELDS(status)) for status in statuses)


def _stamp(values: tuple[int, int, int, int]) -> bytes:
    """A stamp as it is stored: inode numbers of 64 bits and times after 2262 wrap around."""
    try:
        return _STAMP.pack(*values)
    except struct.error:
        return _STAMP.pack(*(((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63) for value in values))
