"""Giving the area another base: after its own commit, after a commit from elsewhere, or from scratch.

Every function runs inside the caller's write transaction.
"""

from __future__ import annotations

import sqlite3

from shardfs.formats.ids import TreeId
from shardfs.formats.tree import DirEntry, TreeEntry
from shardfs.staging.database import delete, has_changes, insert, row_at, rows_in, rows_where, set_fact, update
from shardfs.staging.namespace import Removed
from shardfs.staging.nodes import (
    ROOT,
    NodeKind,
    Row,
    content_key,
    gone_row,
    new_ino,
    new_version,
    row_of_entry,
    same_as_entry,
)
from shardfs.staging.snapshot import Snapshot
from shardfs.staging.view import BASE_TIME, View


def mark_committed(db: sqlite3.Connection, view: View, snapshot: Snapshot, removed: Removed) -> None:
    """Make the trees that a snapshot built the base. What the area shows stays the same, to the byte.

    Private files that have not changed since the snapshot become references. Whatever was done in between stays a
    change, now relative to the new base.
    """
    for ino, (version, entry) in snapshot.ingested.items():
        row = row_at(db, ino)
        if row is not None and row.version == version and row.wgen is None and row.gen is not None:
            update(db, ino, gen=None, below=None, content=content_key(entry), size=entry.size)
            removed.files.append((ino, row.gen))
    directories = []
    for ino, tree_id in snapshot.built.items():
        row = row_at(db, ino)
        if row is not None and row.kind == NodeKind.DIR:
            _keep_showing(db, view, row, tree_id)
            update(db, ino, base=tree_id)
            directories.append(row._replace(base=tree_id))
    for directory in directories:
        _resettle(db, view, directory)


def drop_settled(db: sqlite3.Connection) -> None:
    """Delete rows that say what the base says anyway; their inode numbers and times go with them.

    Only while nobody has a session. Rows with extended attributes stay.
    """
    sql = """DELETE FROM nodes WHERE settled = 1
        AND NOT EXISTS (SELECT 1 FROM nodes below WHERE below.parent = nodes.ino)
        AND NOT EXISTS (SELECT 1 FROM xattrs WHERE xattrs.ino = nodes.ino)"""
    while db.execute(sql).rowcount > 0:
        pass


def rebase(db: sqlite3.Connection, view: View, base: TreeId | None, time_ns: int) -> None:
    """Put the area's changes on top of another base; what was not changed follows it."""
    root = row_at(db, ROOT)
    assert root is not None
    pending: list[tuple[Row, TreeId | None]] = [(root, base)]
    while pending:
        directory, new_base = pending.pop()
        before, after = view.tree(directory.base).by_name, view.tree(new_base).by_name
        update(db, directory.ino, base=new_base)
        moved = directory._replace(base=new_base)
        for row in rows_in(db, directory.ino):
            old, new = before.get(row.name), after.get(row.name)
            if row.kind == NodeKind.DIR:
                pending += _follow(db, view, row, moved, (old, new))
            elif row.settled and new != old:
                delete(db, row.ino)
            else:  # rows of unchanged entries stay, too: somebody may have the file open
                view.settle(db, row, moved)
    set_fact(db, BASE_TIME, time_ns)


def reset(db: sqlite3.Connection, base: TreeId | None, time_ns: int, removed: Removed) -> None:
    """Forget every change and start at another base."""
    for row in rows_where(db, f"ino != {ROOT}"):
        removed.add(row)
    db.execute("DELETE FROM xattrs")
    db.execute("DELETE FROM nodes WHERE ino != ?", (ROOT,))
    update(db, ROOT, base=base, mtime_ns=time_ns, ctime_ns=time_ns)
    set_fact(db, BASE_TIME, time_ns)


def _follow(
    db: sqlite3.Connection, view: View, row: Row, parent: Row, entries: tuple[TreeEntry | None, TreeEntry | None]
) -> list[tuple[Row, TreeId | None]]:
    """Rebase a directory's row that showed, or may now show, the base's directory of its name."""
    old, new = entries
    shows_base = isinstance(old, DirEntry) and old.tree == row.base
    if not shows_base and not (row.base is None and old is None):
        view.settle(db, row, parent)
        return []
    new_base = new.tree if isinstance(new, DirEntry) else None
    if shows_base and new_base is None and not has_changes(db, row.ino):
        _delete_below(db, row)
        return []
    view.settle(db, row._replace(base=new_base), parent)
    return [(row, new_base)] if new_base != row.base else []


def _delete_below(db: sqlite3.Connection, row: Row) -> None:
    pending = [row]
    while pending:
        one = pending.pop()
        delete(db, one.ino)
        if one.kind == NodeKind.DIR:
            pending += rows_in(db, one.ino)


def _keep_showing(db: sqlite3.Connection, view: View, directory: Row, tree_id: TreeId) -> None:
    """Rows for names without one that the new base would show differently (unlinked since the snapshot)."""
    before, after = view.tree(directory.base).by_name, view.tree(tree_id).by_name
    names = {row[0] for row in db.execute("SELECT name FROM nodes WHERE parent = ?", (directory.ino,))}
    for name in (before.keys() | after.keys()) - names:
        old = before.get(name)
        if old == after.get(name):
            continue
        if old is None:
            insert(db, gone_row(directory.ino, name))
        else:
            row = row_of_entry(new_ino(), directory.ino, old, directory.mtime_ns)
            insert(db, row._replace(version=new_version(), settled=0))


def _resettle(db: sqlite3.Connection, view: View, directory: Row) -> None:
    """Compare all rows of a directory with its base again."""
    entries = view.tree(directory.base).by_name
    changed = []
    for row in rows_in(db, directory.ino):
        settled = int(same_as_entry(row, entries.get(row.name)))
        if row.kind == NodeKind.GONE and settled:
            delete(db, row.ino)
        elif settled != row.settled:
            changed.append((settled, row.ino))
    db.executemany("UPDATE nodes SET settled = ? WHERE ino = ?", changed)
