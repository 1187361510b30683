"""What differs between the area and its base: the changed rows, and the list of changes that `status` shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field

from shardfs.diff.trees import ChangeKind
from shardfs.formats.tree import DirEntry, FileEntry, TreeEntry
from shardfs.staging.database import row_at, rows_where
from shardfs.staging.nodes import ROOT, NodeKind, PathKey, Row
from shardfs.staging.view import View


@dataclass(frozen=True, slots=True)
class StagedChange:
    """One path that differs from the base: a file, a link or an empty directory.

    `new` is None for deletions and for private files, whose content has no id before the commit: for them `size`
    is what is known. A private file of the old size counts as modified without a look at its bytes.
    """

    path: PathKey
    kind: ChangeKind
    old: TreeEntry | None
    new: TreeEntry | None
    size: int = 0  # bytes of the new content


@dataclass(slots=True)
class Overlay:
    """The rows that matter for a commit, as of one transaction.

    Attributes:
        dirs: directories whose tree must be built, by inode number; the root is always among them.
        rows: rows by directory: everything that differs from that directory's base tree.
    """

    dirs: dict[int, Row]
    rows: dict[int, list[Row]] = field(default_factory=dict)

    @classmethod
    def load(cls, db: sqlite3.Connection) -> Overlay:
        """Read the changed rows and the directories above them."""
        root = row_at(db, ROOT)
        assert root is not None
        overlay = cls({ROOT: root})
        changed = rows_where(db, f"settled = 0 AND ino != {ROOT}")
        known = {row.ino: row for row in changed}
        for row in changed:
            overlay.rows.setdefault(row.parent, []).append(row)
            if row.kind == NodeKind.DIR and row.base is None:
                overlay.dirs[row.ino] = row
        for row in changed:
            overlay._load_above(db, row.parent, known)
        return overlay

    def children(self, ino: int) -> list[Row]:
        """What differs in one directory."""
        return self.rows.get(ino, [])

    def post_order(self) -> list[tuple[PathKey, Row]]:
        """Directories to build with their paths, each after those below it."""
        found: list[tuple[PathKey, Row]] = []
        pending: list[tuple[PathKey, Row]] = [((), self.dirs[ROOT])]
        while pending:
            path, row = pending.pop()
            found.append((path, row))
            pending += [((*path, c.name), self.dirs[c.ino]) for c in self.children(row.ino) if c.ino in self.dirs]
        found.reverse()
        return found

    def _load_above(self, db: sqlite3.Connection, ino: int, known: dict[int, Row]) -> None:
        while ino not in self.dirs:
            row = known.get(ino)
            if row is None:
                row = row_at(db, ino)
                if row is None:
                    return
                known[ino] = row
                self.rows.setdefault(row.parent, []).append(row)
            self.dirs[ino] = row
            ino = row.parent


@dataclass(frozen=True, slots=True)
class _Side:
    """A directory on the new side: a row with rows below it, or just a tree."""

    tree: bytes | None
    row: Row | None = None


@dataclass(frozen=True, slots=True)
class _Deeper:
    """A directory that exists on at least one side and has to be looked into."""

    path: PathKey
    new: _Side | None
    old: bytes | None


def changes(overlay: Overlay, view: View) -> Iterator[StagedChange]:
    """Paths that differ from the base; those of a directory by name, parents before children."""
    if not overlay.rows:
        return  # without a look at the root's tree, which may have 100 000 entries
    root = overlay.dirs[ROOT]
    pending = [_Deeper((), _Side(root.base, root), root.base)]
    while pending:
        deeper: list[_Deeper] = []
        for item in _compare(overlay, view, pending.pop()):
            if isinstance(item, _Deeper):
                deeper.append(item)
            else:
                yield item
        pending += reversed(deeper)


def _compare(overlay: Overlay, view: View, both: _Deeper) -> Iterator[StagedChange | _Deeper]:
    new = both.new
    before = view.tree(both.old).by_name
    after = view.tree(new.tree).by_name if new is not None else {}
    rows = {row.name: row for row in overlay.children(new.row.ino)} if new is not None and new.row else {}
    same_base = new is not None and new.tree == both.old
    for name in sorted(rows.keys() if same_base else before.keys() | after.keys() | rows.keys()):
        row = rows.get(name)
        path, old = (*both.path, name), before.get(name)
        if row is None:
            yield from _pair(overlay, view, path, (old, after.get(name)), None)
        elif row.kind == NodeKind.GONE or not row.stable:
            yield from _pair(overlay, view, path, (old, None), None)
        else:
            yield from _pair(overlay, view, path, (old, row.entry()), row)


def _pair(
    overlay: Overlay, view: View, path: PathKey, entries: tuple[TreeEntry | None, TreeEntry | None], row: Row | None
) -> Iterator[StagedChange | _Deeper]:
    """One path on both sides; `row` is the new side's, if it has one."""
    old, new = entries
    old_tree = old.tree if isinstance(old, DirEntry) else None
    side: _Side | None = None
    if row is not None and row.kind == NodeKind.DIR:
        side = _Side(row.base, row if row.ino in overlay.dirs else None)
    elif isinstance(new, DirEntry):
        side = _Side(new.tree)
    exists = side is None and (new is not None or row is not None)
    yield from _leaf(path, None if old_tree else old, new, row, exists=exists)
    if side is None and old_tree is None:
        return
    if side is not None and side.row is None and side.tree == old_tree:
        return
    if old_tree is None and side is not None and _is_empty(overlay, view, side):
        yield StagedChange(path, ChangeKind.ADDED, None, new)
    if side is None and not view.tree(old_tree).entries:
        yield StagedChange(path, ChangeKind.DELETED, old, None)
    yield _Deeper(path, side, old_tree)


def _leaf(
    path: PathKey, old: TreeEntry | None, new: TreeEntry | None, row: Row | None, *, exists: bool
) -> Iterator[StagedChange]:
    """The change of a file or link; directories count as absent here."""
    if not exists:
        if old is not None:
            yield StagedChange(path, ChangeKind.DELETED, old, None)
        return
    size = row.size if row is not None else (new.size if isinstance(new, FileEntry) else 0)
    if old is None:
        yield StagedChange(path, ChangeKind.ADDED, None, new, size)
    elif old != new:
        yield StagedChange(path, ChangeKind.MODIFIED, old, new, size)


def _is_empty(overlay: Overlay, view: View, side: _Side) -> bool:
    rows = overlay.children(side.row.ino) if side.row is not None else []
    if any(row.kind != NodeKind.GONE for row in rows):
        return False
    hidden = {row.name for row in rows}
    return all(entry.name in hidden for entry in view.tree(side.tree).entries)
