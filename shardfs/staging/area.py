"""The staging area of one branch: a mutable tree over the tree of the branch's tip.

Design, durability rules and crash states: docs/design/staging.md. Everything here can be called from many threads
at once, and several processes can have the same area open. Errors are `AreaError` with an errno, plus whatever
`trees` and `open_content` raise when committed content cannot be had.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from shardfs.errors import AreaError, OutOfSpaceError, StoreError
from shardfs.formats.ids import Kind, TreeId
from shardfs.formats.tree import MAX_NAME_SIZE, TreeEntry
from shardfs.staging import rebase as rebasing
from shardfs.staging.attributes import Attributes
from shardfs.staging.changes import Overlay, StagedChange, changes
from shardfs.staging.database import Database, insert, row_at, rows_where, set_fact
from shardfs.staging.durability import Durability
from shardfs.staging.generations import Generations
from shardfs.staging.handles import AreaFile, OpenFiles
from shardfs.staging.layers import Below
from shardfs.staging.locks import ClosingLock, SessionLock, SnapshotLock
from shardfs.staging.namespace import RENAME_NOREPLACE, Namespace, Removed
from shardfs.staging.nodes import ROOT, NodeKind, NodeStat, OpenContent, PathKey, Row, Trees, new_row
from shardfs.staging.opened import Surroundings
from shardfs.staging.recovery import SWEEP, Recovery, recover
from shardfs.staging.reserve import Reserve
from shardfs.staging.snapshot import Snapshot
from shardfs.staging.view import BASE_TIME, View, path_of

SESSION_WAIT_S: Final = 5.0  # another process that only puts the area in order is done by then
_BATCH: Final = 1000  # entries per transaction of put_entries: others wait for 15 ms, 60 when all replace rows

__all__ = [
    "RENAME_NOREPLACE",
    "ROOT",
    "Area",
    "AreaFile",
    "NodeKind",
    "NodeStat",
    "Recovery",
    "Snapshot",
    "StagedChange",
]

_Names = list[bytes]  # inside the class, `list` is the method
_Paths = list[PathKey]


class Area:
    """The staging area of one branch. See the module. Not to be used across fork."""

    root: Final = ROOT

    def __init__(self, directory: Path, trees: Trees, open_content: OpenContent) -> None:
        """Use `Area.open`."""
        self.directory = directory
        self.recovery = Recovery()
        self._session = SessionLock(directory / "session.lock")
        self._snapshots = SnapshotLock(directory / "snapshot.lock")
        self._closing = ClosingLock(directory / "closing.lock")
        self._files = Generations(directory / "files", self._snapshots)
        self._reserve = Reserve(directory / "reserve")
        self._database = Database(directory / "area.sqlite")
        self._view = View(trees)
        self._names = Namespace(self._view, self._files)
        self._attributes = Attributes(self._database, self._view)
        self._durability = Durability(self._database, self._files, self._reserve)
        self._opened = OpenFiles(
            Surroundings(self._database, self._view, self._files, self._durability, self._closing, open_content)
        )

    @classmethod
    def open(
        cls,
        directory: Path,
        trees: Trees,
        open_content: OpenContent,
        base: TreeId | None = None,
        base_time_ns: int = 0,
    ) -> Area:
        """Open the area in `directory`; a new one starts at the tree `base`.

        An area that exists keeps its own base: compare `area.base` with the branch's tip and `rebase`.
        What a killed process left unfinished is put in order first (see `recovery`), unless a live session owns it.

        Args:
            directory: made when missing.
            trees: source of committed trees.
            open_content: source of committed file contents.
            base: tree of the branch's tip, None before the first commit.
            base_time_ns: modification time that unchanged entries show (the commit's time).

        Raises:
            StoreError: the directory or its database cannot be made or read. OutOfSpaceError: the disk is full.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            try:
                area = cls(directory, trees, open_content)
            except OutOfSpaceError:
                if not Reserve(directory / "reserve").release():
                    raise
                area = cls(directory, trees, open_content)
        except OSError as error:
            msg = f"cannot open the staging area {directory}: {error.strerror}"
            raise StoreError(msg) from error
        try:
            area._start(base, base_time_ns)
        except BaseException:
            area.close()
            raise
        return area

    def close(self) -> None:
        """End the session, if any, and close the database. Release open files before."""
        try:
            self._opened.close()
            if self._files.outdated():
                self._durability.sync()
            if self._session.held:
                recover(self._database, self._files)
        finally:
            self._closing.close()
            self._session.release()
            self._database.close()

    def __enter__(self) -> Area:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def base(self) -> TreeId | None:
        """The committed tree that changes are relative to."""
        with self._database.read() as db:
            base = self._root_row(row_at(db, ROOT)).base
        return None if base is None else TreeId(base)

    def start_session(self, who: str, wait_s: float = SESSION_WAIT_S) -> None:
        """Become the one process that may write through handles (create, mknod, open for writing, truncate).

        Args:
            who: for people, as in "the mount at /home/me/models".
            wait_s: seconds to wait for another session to end.

        Raises:
            LockedError: another process has it; the message says which.
        """
        self._session.acquire(who, wait_s)
        self._recover()
        with self._database.write(durable=True) as db:
            set_fact(db, SWEEP, 1)
        self._reserve.fill()

    # Looking

    def lookup(self, parent: int, name: bytes) -> NodeStat:
        """The entry `name` of a directory (ENOENT, ENOTDIR, ENAMETOOLONG)."""
        if len(name) > MAX_NAME_SIZE:
            raise AreaError(errno.ENAMETOOLONG, name)
        with self._database.read() as db:
            row = self._view.child(db, self._view.node(db, parent), name)
        return self._opened.stat_of(row)

    def find(self, path: PathKey) -> NodeStat:
        """The node at a path from the root (ENOENT, ENOTDIR)."""
        with self._database.read() as db:
            row = self._view.at(db, path)
        return self._opened.stat_of(row)

    def stat(self, ino: int) -> NodeStat:
        """A node by inode number, which lookup, find or list of this object gave (ENOENT)."""
        with self._database.read() as db:
            row = self._view.node(db, ino)
        return self._opened.stat_of(row)

    def list(self, ino: int) -> list[NodeStat]:
        """The entries of a directory, in no order, without "." and ".." (ENOENT, ENOTDIR)."""
        with self._database.read() as db:
            rows, virtual = self._view.children(db, self._view.directory(db, ino))
        return [*map(self._opened.stat_of, rows), *virtual]

    def readlink(self, ino: int) -> bytes:
        """The target of a link (EINVAL when it is none)."""
        with self._database.read() as db:
            row = self._view.node(db, ino)
        if row.target is None:
            raise AreaError(errno.EINVAL, row.name)
        return row.target

    # Changing

    def create(self, parent: int, name: bytes, mode: int, flags: int = os.O_RDWR) -> AreaFile:
        """Make a file and open it. With O_EXCL in `flags` an existing one is EEXIST, else it is opened.

        Commits take a new file from its first release or fsync on.
        """
        self._check_session(name)
        try:
            with self._database.write() as db:
                row = self._names.make(db, parent, name, NodeKind.FILE, mode, wgen=1, last_gen=1)
                return self._opened.created(row, flags)
        except AreaError as error:
            if error.errno != errno.EEXIST or flags & os.O_EXCL:
                raise
        return self._opened.open(self.lookup(parent, name).ino, flags)

    def mknod(self, parent: int, name: bytes, mode: int) -> NodeStat:
        """Make an empty file without opening it."""
        return self._make(parent, name, NodeKind.FILE, mode, content=b"")

    def mkdir(self, parent: int, name: bytes, mode: int) -> NodeStat:
        """Make a directory (EEXIST, ENOENT, ENOTDIR)."""
        return self._make(parent, name, NodeKind.DIR, mode)

    def symlink(self, parent: int, name: bytes, target: bytes) -> NodeStat:
        """Make a symbolic link."""
        with self._database.write() as db:
            row = self._names.symlink(db, parent, name, target)
        return self._opened.stat_of(row)

    def unlink(self, parent: int, name: bytes) -> None:
        """Remove a file or link; open handles keep working (ENOENT, EISDIR)."""
        self._free(lambda db, removed: self._names.unlink(db, parent, name, removed))

    def rmdir(self, parent: int, name: bytes) -> None:
        """Remove an empty directory (ENOENT, ENOTDIR, ENOTEMPTY)."""
        self._free(lambda db, removed: self._names.rmdir(db, parent, name, removed))

    def rename(self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int = 0) -> None:
        """Move an entry, over an existing one unless RENAME_NOREPLACE (EEXIST, EINVAL, ENOTEMPTY ...)."""
        with self._removing() as (db, removed):
            self._names.rename(db, (parent, name), (new_parent, new_name), flags, removed)

    def chmod(self, ino: int, mode: int) -> NodeStat:
        """Set the permission bits (0o7777). Commits keep only whether the owner may execute."""
        with self._database.write() as db:
            row = self._attributes.chmod(db, ino, mode)
        return self._opened.stat_of(row)

    def utimens(self, ino: int, mtime_ns: int) -> NodeStat:
        """Set the modification time."""
        self._opened.set_mtime(ino, mtime_ns)
        with self._database.write() as db:
            row = self._attributes.utimens(db, ino, mtime_ns)
        return self._opened.stat_of(row)

    def truncate(self, ino: int, size: int) -> None:
        """Cut or extend a file by inode number: open, truncate, release."""
        file = self.open_file(ino, os.O_WRONLY)
        try:
            file.truncate(size)
        finally:
            file.release()

    def open_file(self, ino: int, flags: int) -> AreaFile:
        """Open a file: access mode, O_TRUNC and O_APPEND of `flags` count (ENOENT, EISDIR, ELOOP for links).

        Raises:
            AreaError: also EROFS for writing without a session.
        """
        if flags & os.O_ACCMODE != os.O_RDONLY:
            self._check_session(b"")
        return self._opened.open(ino, flags)

    def sync(self, ino: int = ROOT) -> None:
        """Make all metadata operations so far durable (fsync of the directory `ino`)."""
        del ino  # one log holds the operations on all directories
        self._durability.sync()

    # Extended attributes: kept in the area, never committed

    def get_xattr(self, ino: int, name: bytes) -> bytes:
        """The value of an attribute (ENODATA)."""
        return self._attributes.get(ino, name)

    def set_xattr(self, ino: int, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an attribute; `flags` 1 = must not exist (EEXIST), 2 = must exist (ENODATA)."""
        self._attributes.set(ino, name, value, flags)

    def list_xattrs(self, ino: int) -> _Names:
        """Names of the attributes, sorted."""
        return self._attributes.names(ino)

    def remove_xattr(self, ino: int, name: bytes) -> None:
        """Remove an attribute (ENODATA)."""
        self._attributes.remove(ino, name)

    # The command line's door

    def put_entry(self, path: PathKey, entry: TreeEntry, mtime_ns: int | None = None) -> None:
        """Put committed content at a path, in place of what is there; missing parents are made.

        `entry.name` is ignored in favour of the path's last name. A parent that is a file is replaced.
        Content that the base has there already leaves no change behind.
        """
        self.put_entries([(path, entry, mtime_ns)])

    def put_entries(self, items: Iterable[tuple[PathKey, TreeEntry, int | None]]) -> None:
        """Many `put_entry`, about a thousand per transaction. Fast when those of a directory follow each other."""
        rest = iter(items)
        while batch := tuple(islice(rest, _BATCH)):
            with self._removing() as (db, removed):
                for folder, inside in groupby(batch, lambda item: item[0][:-1]):
                    entries = {_last(path): (entry, mtime_ns) for path, entry, mtime_ns in inside}
                    self._names.put(db, folder, entries, removed)

    def remove(self, path: PathKey) -> None:
        """Remove a file, a link or a whole directory (ENOENT)."""
        self._free(lambda db, removed: self._names.remove(db, path, removed))

    # Commits

    def changes(self) -> Iterator[StagedChange]:
        """Paths that differ from the base, as a commit would now take them; parents before children.

        Whole directories that were added, removed or moved are listed file by file.
        """
        with self._database.read() as db:
            overlay = Overlay.load(db)
        return changes(overlay, self._view)

    def changed_directories(self) -> frozenset[int]:
        """Inode numbers of directories that have a change in them or below; all others show a committed tree."""
        with self._database.read() as db:
            overlay = Overlay.load(db)
        return frozenset(overlay.dirs) if overlay.rows else frozenset()

    def unfinished(self) -> _Paths:
        """Files that are being written to: a commit takes their last stable content, or leaves new ones out."""
        with self._database.read() as db:
            paths = [path_of(db, row) for row in rows_where(db, "wgen IS NOT NULL")]
        return sorted(path for path in paths if path is not None)

    def snapshot(self) -> Snapshot:
        """Everything that a commit needs, from one moment. Waits up to a second for files that are being closed.

        The caller builds it, publishes the commit, calls `mark_committed` and closes the snapshot.
        """
        self._closing.wait()
        fd = self._snapshots.share()
        try:
            with self._database.read() as db:
                overlay = Overlay.load(db)
            return Snapshot(overlay, self._view, self._files.path, lambda: self._close_snapshot(fd))
        except BaseException:
            os.close(fd)
            raise

    def mark_committed(self, snapshot: Snapshot, new_base: TreeId, base_time_ns: int | None = None) -> None:
        """The tree that `snapshot` built is now the branch's tip: make it the base.

        What changed since the snapshot stays changed. What the area shows does not move by a byte.

        Args:
            snapshot: a snapshot that was built and is still open.
            new_base: what `snapshot.build` returned; its trees can be read by now.
            base_time_ns: as of `open`; None: as it was.
        """
        if snapshot.built.get(ROOT) != new_base:
            msg = "the new base is not the tree that the snapshot built"
            raise ValueError(msg)
        removed = Removed()
        alone = not self._session.held and self._session.try_acquire("commit")
        try:
            with self._durability.write() as db:
                rebasing.mark_committed(db, self._view, snapshot, removed)
                if base_time_ns is not None:
                    set_fact(db, BASE_TIME, base_time_ns)
                set_fact(db, SWEEP, 1)
                if alone:
                    rebasing.drop_settled(db)
            if alone:
                self._database.shrink()
        finally:
            if alone:
                self._session.release()
        self._files.discard(removed.files)

    def rebase(self, base: TreeId | None, base_time_ns: int) -> None:
        """Put the changes on top of another base (a pull, a moved branch); unchanged paths follow it.

        A directory that both sides made is merged; of a file that both sides changed the area's one stays.
        """
        with self._database.write() as db:
            rebasing.rebase(db, self._view, base, base_time_ns)

    def reset(self, base: TreeId | None, base_time_ns: int = 0) -> None:
        """Drop every change and start at another base. Files that are open lose their names."""
        self._free(lambda db, removed: rebasing.reset(db, base, base_time_ns, removed))

    def references(self) -> Iterator[tuple[Kind, bytes]]:
        """Every chunk, manifest and tree that the area itself names, for garbage collection."""
        with self._database.read() as db:
            rows = rows_where(db, "base IS NOT NULL OR length(content) > 0 OR below IS NOT NULL")
        for row in rows:
            if row.base is not None:
                yield Kind.TREE, row.base
            for content in (row.content, Below.from_bytes(row.below).content if row.below is not None else None):
                if content:
                    yield Kind.MANIFEST if content[:1] == b"M" else Kind.CHUNK, content[1:]

    def _start(self, base: TreeId | None, base_time_ns: int) -> None:
        with self._database.read() as db:
            known = row_at(db, ROOT) is not None
        if not known:
            with self._database.write(durable=True) as db:
                if row_at(db, ROOT) is None:
                    root = new_row(0, b"", NodeKind.DIR, 0o755, base_time_ns)
                    insert(db, root._replace(ino=ROOT, base=base))
                    set_fact(db, BASE_TIME, base_time_ns)
        if self._session.try_acquire("recovery"):
            try:
                self._recover()
            finally:
                self._session.release()

    def _recover(self) -> None:
        self.recovery = recover(self._database, self._files)
        self.recovery.log(self.directory)

    def _make(self, parent: int, name: bytes, kind: NodeKind, mode: int, **columns: object) -> NodeStat:
        with self._database.write() as db:
            row = self._names.make(db, parent, name, kind, mode, **columns)
        return self._opened.stat_of(row)

    def _free(self, remove: Callable[[sqlite3.Connection, Removed], None]) -> None:
        """Remove nodes, even on a full disk."""

        def work() -> None:
            with self._removing() as (db, removed):
                remove(db, removed)

        self._durability.despite_full_disk(work)

    @contextmanager
    def _removing(self) -> Iterator[tuple[sqlite3.Connection, Removed]]:
        """A transaction that makes nodes superfluous; then their handles are told and their files deleted."""
        removed = Removed()
        with self._database.write() as db:
            yield db, removed
            if removed.files and not self._session.held:
                set_fact(db, SWEEP, 1)  # a snapshot elsewhere, or a kill, may keep the files from being deleted now
        if removed.inos:
            self._opened.removed(removed.inos)
        if removed.files:
            self._durability.outdate(removed.files)

    def _close_snapshot(self, fd: int) -> None:
        os.close(fd)
        self._files.discard()

    def _check_session(self, name: bytes) -> None:
        if not self._session.held:
            raise AreaError(errno.EROFS, name)

    @staticmethod
    def _root_row(row: Row | None) -> Row:
        if row is None:
            raise AreaError(errno.EIO, "the staging area has no root")
        return row


def _last(path: PathKey) -> bytes:
    if not path:
        raise AreaError(errno.EBUSY, "/")
    return path[-1]
