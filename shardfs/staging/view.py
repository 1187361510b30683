"""The merged view: rows over the base tree.

The number of an entry without a row is derived from its place. A node that was moved keeps its number and is marked
"stray"; should its old place show an entry of the base again, that entry takes the next number of the same series.

A node without a row is handed around as a row too, made on the spot with version 0 ("virtual"). No row lies below
a virtual directory: whoever stores a row stores the directories above it first (`materialise`).
"""

from __future__ import annotations

import errno
import secrets
import sqlite3
import time
from typing import Final

from shardfs.errors import AreaError
from shardfs.formats.ids import TreeId
from shardfs.formats.tree import EMPTY_TREE, Tree, TreeEntry
from shardfs.staging.database import delete, fact, insert, row_at, row_named, rows_in, update
from shardfs.staging.nodes import (
    ROOT,
    NodeKind,
    NodeStat,
    PathKey,
    Row,
    Trees,
    derived_ino,
    gone_row,
    new_version,
    row_of_entry,
    same_as_entry,
    stat_of_entry,
)

BASE_TIME: Final = "base_time_ns"
_VIRTUAL: Final = 0
_GENERATION_BITS: Final = 48  # so that two series of generations of one inode number do not meet
_LARGE: Final = 50_000  # entries; parsing takes a second and the source may have no room to keep such a tree


class View:
    """Lookups by name and by inode number, inside the caller's transaction."""

    def __init__(self, trees: Trees) -> None:
        self._trees = trees
        # Where virtual nodes are, by inode number: the hash cannot be turned round. About 200 bytes per entry that
        # was looked at; entries are checked at each use and never need to be forgotten for correctness.
        self._places: dict[int, tuple[int, bytes]] = {}
        self._large: tuple[bytes, Tree] | None = None

    def tree(self, tree_id: bytes | None) -> Tree:
        """A tree of the base; None is the empty one."""
        if tree_id is None:
            return EMPTY_TREE
        large = self._large
        if large is not None and large[0] == tree_id:
            return large[1]
        tree = self._trees.tree(TreeId(tree_id))
        if len(tree.entries) > _LARGE:
            self._large = (tree_id, tree)
        return tree

    def base_entry(self, parent: Row, name: bytes) -> TreeEntry | None:
        """What the base tree of a directory has under a name, whatever the rows say."""
        return None if parent.base is None else self.tree(parent.base).by_name.get(name)

    def node(self, db: sqlite3.Connection, ino: int) -> Row:
        """The node of an inode number.

        Raises:
            AreaError: ENOENT.
        """
        asked = ino
        below: list[tuple[bytes, int]] = []
        while (row := row_at(db, ino)) is None or row.kind == NodeKind.GONE:
            place = self._places.get(ino)
            if place is None:
                raise AreaError(errno.ENOENT, f"inode {asked}")
            below.append((place[1], ino))
            ino = place[0]
        while below:
            name, ino = below.pop()
            row = self.child(db, row, name)
            if row.ino != ino:  # the name has been given to another node since
                raise AreaError(errno.ENOENT, f"inode {asked}")
        return row

    def child(self, db: sqlite3.Connection, parent: Row, name: bytes) -> Row:
        """The entry `name` of a directory.

        Raises:
            AreaError: ENOENT, ENOTDIR.
        """
        row = self.child_or_none(db, parent, name)
        if row is None:
            raise AreaError(errno.ENOENT, name)
        return row

    def child_or_none(self, db: sqlite3.Connection, parent: Row, name: bytes) -> Row | None:
        """As `child`, None when there is no such entry."""
        if parent.kind != NodeKind.DIR:
            raise AreaError(errno.ENOTDIR, parent.name)
        if parent.version != _VIRTUAL:
            row = row_named(db, parent.ino, name)
            if row is not None:
                return row if row.kind != NodeKind.GONE else None
        entry = self.base_entry(parent, name)
        if entry is None:
            return None
        ino, salt = derived_ino(parent.ino, name), 0
        while db.execute("SELECT 1 FROM nodes WHERE ino = ? AND stray = 1", (ino,)).fetchone():
            salt += 1
            ino = derived_ino(parent.ino, name, salt)
        self._places[ino] = (parent.ino, name)
        return row_of_entry(ino, parent.ino, entry, fact(db, BASE_TIME))

    def at(self, db: sqlite3.Connection, path: PathKey) -> Row:
        """The node at a path from the root (ENOENT, ENOTDIR)."""
        row = self.node(db, ROOT)
        for name in path:
            row = self.child(db, row, name)
        return row

    def directory(self, db: sqlite3.Connection, ino: int) -> Row:
        """As `node`, for directories (ENOTDIR)."""
        row = self.node(db, ino)
        if row.kind != NodeKind.DIR:
            raise AreaError(errno.ENOTDIR, row.name)
        return row

    def children(self, db: sqlite3.Connection, parent: Row) -> tuple[list[Row], list[NodeStat]]:
        """All entries of a directory, in no order: those with a row, and those of the base that show through."""
        rows = rows_in(db, parent.ino) if parent.version != _VIRTUAL else []
        virtual: list[NodeStat] = []
        if parent.base is not None:
            hidden = {row.name for row in rows}
            time_ns = fact(db, BASE_TIME)
            strays = {row[0] for row in db.execute("SELECT ino FROM nodes WHERE stray = 1")}
            for entry in self.tree(parent.base).entries:
                name = entry.name
                if name not in hidden:
                    ino, salt = derived_ino(parent.ino, name), 0
                    while ino in strays:
                        salt += 1
                        ino = derived_ino(parent.ino, name, salt)
                    self._places[ino] = (parent.ino, name)
                    virtual.append(stat_of_entry(ino, parent.ino, entry, time_ns))
        return [row for row in rows if row.kind != NodeKind.GONE], virtual

    def is_empty(self, db: sqlite3.Connection, directory: Row) -> bool:
        """Whether a directory has no entries."""
        rows = rows_in(db, directory.ino) if directory.version != _VIRTUAL else []
        if any(row.kind != NodeKind.GONE for row in rows):
            return False
        hidden = {row.name for row in rows}
        return all(entry.name in hidden for entry in self.tree(directory.base).entries)

    # Changing, inside a write transaction

    def materialise(self, db: sqlite3.Connection, row: Row) -> Row:
        """Store a virtual node and the virtual directories above it; any other row is returned as it is."""
        if row.version != _VIRTUAL:
            return row
        stored = row_at(db, row.ino)  # meanwhile, on the way of a node below it
        if stored is not None:
            return stored
        pending = [row]
        while pending[-1].version == _VIRTUAL:
            pending.append(self.node(db, pending[-1].parent))
        for virtual in reversed(pending[:-1]):
            # The number may have had a row before, whose generations still wait to be deleted.
            row = virtual._replace(version=new_version(), last_gen=secrets.randbits(_GENERATION_BITS))
            insert(db, row)
        return row

    def touch(self, db: sqlite3.Connection, directory: Row, now_ns: int | None = None) -> None:
        """The content of a stored directory changed now."""
        now_ns = time.time_ns() if now_ns is None else now_ns
        update(db, directory.ino, mtime_ns=now_ns, ctime_ns=now_ns)

    def vacate(self, db: sqlite3.Connection, parent: Row, name: bytes) -> None:
        """Nothing is under a name any more: its row has been deleted or moved, the base must not show through."""
        if self.base_entry(parent, name) is not None:
            insert(db, gone_row(parent.ino, name))

    def settle(self, db: sqlite3.Connection, row: Row, parent: Row) -> None:
        """Note whether a stored row now says the same as the base tree of its directory."""
        settled = int(same_as_entry(row, self.base_entry(parent, row.name)))
        if row.kind == NodeKind.GONE and settled:
            delete(db, row.ino)
        elif settled != row.settled:
            update(db, row.ino, settled=settled)


def path_of(db: sqlite3.Connection, row: Row) -> PathKey | None:
    """The path of a stored row; None when no directory holds it any more."""
    names: list[bytes] = []
    above: Row | None = row
    while above is not None and above.ino != ROOT:
        names.append(above.name)
        above = row_at(db, above.parent)
    return tuple(reversed(names)) if above is not None else None
