"""Operations on names: what a file system calls create, unlink, rename, and the command line's put and remove.

Every function runs inside the caller's write transaction. Files and open handles are not touched here: what became
superfluous is collected in `Removed`, for the time after the commit.
"""

from __future__ import annotations

import errno
import sqlite3
import time
from dataclasses import dataclass, field, replace
from typing import Final

from shardfs.errors import AreaError
from shardfs.formats.tree import MAX_TARGET_SIZE, FileEntry, TreeEntry
from shardfs.staging.database import delete, has_changes, insert, insert_all, names_with_rows, rows_in, update
from shardfs.staging.generations import FileKey, Generations
from shardfs.staging.nodes import (
    ROOT,
    NodeKind,
    PathKey,
    Row,
    added_row,
    checked_name,
    content_key,
    is_derived,
    new_inos,
    new_row,
    new_version,
)
from shardfs.staging.view import View

RENAME_NOREPLACE: Final = 1  # renameat2(2)


@dataclass(slots=True)
class Removed:
    """What a transaction made superfluous."""

    inos: list[int] = field(default_factory=list)
    files: list[FileKey] = field(default_factory=list)

    def add(self, row: Row) -> None:
        """A row is no longer."""
        self.inos.append(row.ino)
        self.files += private_files(row)


def private_files(row: Row) -> list[FileKey]:
    """The generation files of a row."""
    return [(row.ino, gen) for gen in {row.gen, row.wgen} if gen is not None]


class Namespace:
    """See the module."""

    def __init__(self, view: View, files: Generations) -> None:
        self._view = view
        self._files = files

    def make(
        self, db: sqlite3.Connection, parent_ino: int, name: bytes, kind: NodeKind, mode: int, **columns: object
    ) -> Row:
        """A new node (EEXIST, ENOENT, ENOTDIR); `columns` are further columns of its row."""
        checked_name(name)
        parent = self._view.directory(db, parent_ino)
        if self._view.child_or_none(db, parent, name) is not None:
            raise AreaError(errno.EEXIST, name)
        parent = self._view.materialise(db, parent)
        now = time.time_ns()
        row = new_row(parent.ino, name, kind, mode & 0o7777, now)._replace(**columns)  # type: ignore[arg-type]
        insert(db, row)
        self._view.settle(db, row, parent)
        self._view.touch(db, parent, now)
        return row

    def symlink(self, db: sqlite3.Connection, parent_ino: int, name: bytes, target: bytes) -> Row:
        """A new symbolic link."""
        if not target or b"\0" in target:
            raise AreaError(errno.ENOENT if not target else errno.EINVAL, name)
        if len(target) > MAX_TARGET_SIZE:
            raise AreaError(errno.ENAMETOOLONG, name)
        return self.make(db, parent_ino, name, NodeKind.LINK, 0o777, target=target, size=len(target))

    def unlink(self, db: sqlite3.Connection, parent_ino: int, name: bytes, removed: Removed) -> None:
        """Remove a file or link."""
        parent = self._view.directory(db, parent_ino)
        row = self._view.child(db, parent, name)
        if row.kind == NodeKind.DIR:
            raise AreaError(errno.EISDIR, name)
        self._drop(db, parent, row, removed)

    def rmdir(self, db: sqlite3.Connection, parent_ino: int, name: bytes, removed: Removed) -> None:
        """Remove an empty directory."""
        parent = self._view.directory(db, parent_ino)
        row = self._view.child(db, parent, name)
        if row.kind != NodeKind.DIR:
            raise AreaError(errno.ENOTDIR, name)
        if not self._view.is_empty(db, row):
            raise AreaError(errno.ENOTEMPTY, name)
        self._drop(db, parent, row, removed)

    def rename(
        self, db: sqlite3.Connection, old: tuple[int, bytes], new: tuple[int, bytes], flags: int, removed: Removed
    ) -> None:
        """Move an entry; one row changes, and a whiteout appears if the base has the old name."""
        if flags & ~RENAME_NOREPLACE:
            raise AreaError(errno.EINVAL, old[1])
        checked_name(new[1])
        view = self._view
        parent, new_parent = view.directory(db, old[0]), view.directory(db, new[0])
        row = view.child(db, parent, old[1])
        target = view.child_or_none(db, new_parent, new[1])
        if target is not None:
            if flags & RENAME_NOREPLACE:
                raise AreaError(errno.EEXIST, new[1])
            if target.ino == row.ino:
                return
        self._check_move(db, row, new_parent, target)
        row, parent = view.materialise(db, row), view.materialise(db, parent)
        new_parent = view.materialise(db, view.node(db, new_parent.ino))
        if target is not None:
            row = self._inherit(db, row, self._unshared(target, new_parent))
            self._drop(db, new_parent, target, removed)
        self._move(db, row, parent, new_parent, new[1])

    def put(
        self,
        db: sqlite3.Connection,
        folder: PathKey,
        items: dict[bytes, tuple[TreeEntry, int | None]],
        removed: Removed,
    ) -> None:
        """Put entries, with their modification times, into a directory in place of what has their names.

        Makes the directory and those above it, in place of files. Names that have no row yet are one insertion.
        """
        view = self._view
        now = time.time_ns()
        parent = self._folder(db, folder, removed)
        known = names_with_rows(db, parent.ino, list(items))
        inos, version = iter(new_inos(len(items))), new_version()
        rows: list[Row] = []
        for name, (entry, mtime_ns) in items.items():
            if checked_name(name) != entry.name:
                entry = replace(entry, name=name)
            old = view.base_entry(parent, name)
            if old == entry and name not in known:
                continue
            times_ns = (now if mtime_ns is None else mtime_ns, now)
            row = added_row(next(inos), parent.ino, entry, times_ns, version)
            if old is None and name not in known:
                rows.append(row)
            else:
                self._replace(db, parent, row, old, removed)
        if rows:
            parent = view.materialise(db, view.node(db, parent.ino))
            insert_all(db, rows)
            view.touch(db, parent, now)

    def remove(self, db: sqlite3.Connection, path: PathKey, removed: Removed) -> None:
        """Remove whatever is at a path, with everything below."""
        if not path:
            raise AreaError(errno.EBUSY, "/")
        parent = self._view.at(db, path[:-1])
        self._drop(db, parent, self._view.child(db, parent, path[-1]), removed)

    def _folder(self, db: sqlite3.Connection, path: PathKey, removed: Removed) -> Row:
        """The directory at a path; made where it is missing, in place of files."""
        parent = self._view.node(db, ROOT)
        for name in path:
            row = self._view.child_or_none(db, parent, checked_name(name))
            if row is None or row.kind != NodeKind.DIR:
                if row is not None:
                    self._drop(db, parent, row, removed)
                row = self.make(db, parent.ino, name, NodeKind.DIR, 0o755)
            parent = row
        return parent

    def _replace(self, db: sqlite3.Connection, parent: Row, row: Row, base: TreeEntry | None, removed: Removed) -> None:
        """Put a row in place of what has its name; `base` is what the directory's base tree has there."""
        view, entry = self._view, row.entry()
        old = view.child_or_none(db, parent, row.name)
        if old is not None and old.wgen is None and old.entry() == entry and _shows_base(db, old):
            return
        parent = view.materialise(db, view.node(db, parent.ino))
        if old is not None:
            self._drop(db, parent, old, removed)
        if base == entry:
            db.execute("DELETE FROM nodes WHERE parent = ? AND name = ? AND kind = 0", (parent.ino, row.name))
        else:
            insert(db, row)
        view.touch(db, parent, row.ctime_ns)

    def _drop(self, db: sqlite3.Connection, parent: Row, row: Row, removed: Removed) -> None:
        """Take a node and everything below out of its directory."""
        parent = self._view.materialise(db, parent)
        pending = [row]
        while pending:
            one = pending.pop()
            removed.add(one)
            if one.version:
                delete(db, one.ino)
                if one.kind == NodeKind.DIR:
                    pending += rows_in(db, one.ino)
        self._view.vacate(db, parent, row.name)
        self._view.touch(db, parent)

    def _check_move(self, db: sqlite3.Connection, row: Row, new_parent: Row, target: Row | None) -> None:
        if row.kind == NodeKind.DIR:
            above = new_parent
            while above.ino != ROOT:
                if above.ino == row.ino:
                    raise AreaError(errno.EINVAL, row.name)
                above = self._view.node(db, above.parent)
        if target is None:
            return
        if row.kind != NodeKind.DIR and target.kind == NodeKind.DIR:
            raise AreaError(errno.EISDIR, target.name)
        if row.kind == NodeKind.DIR:
            if target.kind != NodeKind.DIR:
                raise AreaError(errno.ENOTDIR, target.name)
            if not self._view.is_empty(db, target):
                raise AreaError(errno.ENOTEMPTY, target.name)

    def _move(self, db: sqlite3.Connection, row: Row, parent: Row, new_parent: Row, name: bytes) -> None:
        now = time.time_ns()
        stray = (row.stray or is_derived(row.ino, row.parent, row.name)) and not is_derived(
            row.ino, new_parent.ino, name
        )
        db.execute("DELETE FROM nodes WHERE parent = ? AND name = ? AND kind = 0", (new_parent.ino, name))
        update(db, row.ino, parent=new_parent.ino, name=name, ctime_ns=now, stray=int(stray))
        self._view.vacate(db, parent, row.name)
        self._view.settle(db, row._replace(parent=new_parent.ino, name=name), new_parent)
        self._view.touch(db, parent, now)
        self._view.touch(db, new_parent, now)

    def _unshared(self, target: Row, parent: Row) -> Row:
        """What a commit may still take of a file that loses its name: of a live one the base's content.

        Programs go on writing to the generation of a live one, and nobody looks any more whether they do.
        """
        if not target.live:
            return target
        base = self._view.base_entry(parent, target.name)
        content, size = (content_key(base), base.size) if isinstance(base, FileEntry) else (None, 0)
        return target._replace(gen=None, below=None, content=content, size=size)

    def _inherit(self, db: sqlite3.Connection, row: Row, target: Row) -> Row:
        """A file that was never closed takes over what it replaces, so that commits find the old or the new."""
        if row.stable or target.kind != NodeKind.FILE or not target.stable:
            return row
        gen = None
        if target.gen is not None:
            gen = row.last_gen + 1
            self._files.link((target.ino, target.gen), (row.ino, gen))
        row = row._replace(
            gen=gen,
            content=target.content,
            below=target.below,
            size=target.size,
            last_gen=gen or row.last_gen,
            version=row.version + 1,
        )
        columns = ("gen", "content", "below", "size", "last_gen", "version")
        update(db, row.ino, **{name: getattr(row, name) for name in columns})
        return row


def stored(db: sqlite3.Connection, view: View, ino: int) -> Row:
    """The node of an inode number, stored if it was not (ENOENT)."""
    return view.materialise(db, view.node(db, ino))


def _shows_base(db: sqlite3.Connection, row: Row) -> bool:
    """Whether a directory shows exactly its base; true for anything else."""
    return row.kind != NodeKind.DIR or not row.version or not has_changes(db, row.ino)
