"""Changes between two trees; equal subtrees are never read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from shardfs.formats.ids import TreeId
from shardfs.formats.tree import DirEntry, FileEntry, TreeEntry
from shardfs.history.content import manifest_of
from shardfs.history.objects import Objects
from shardfs.history.paths import Path


class ChangeKind(StrEnum):
    """What happened to a path."""

    ADDED = "added"
    MODIFIED = "modified"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Change:
    """One changed file or link, or a directory that came or went; `old` or `new` is None at an end."""

    kind: ChangeKind
    path: Path
    old: TreeEntry | None
    new: TreeEntry | None


def change_of(path: Path, old: TreeEntry | None, new: TreeEntry | None) -> Change:
    """The change from one entry to another; at least one is not None."""
    if old is None:
        return Change(ChangeKind.ADDED, path, None, new)
    return Change(ChangeKind.DELETED if new is None else ChangeKind.MODIFIED, path, old, new)


_Step = Change | tuple[TreeId | None, TreeId | None, Path]  # a change to report, or two trees to compare


def changes(objects: Objects, old: TreeId | None, new: TreeId | None, prefix: Path = ()) -> Iterator[Change]:
    """Changed files and links from tree `old` to tree `new`; None is the empty tree.

    A directory itself is reported only when it is empty; else its content is. The order is that of the paths, except
    that what takes the place of a directory comes after all that was in the directory. Iterative: the depth of a tree
    is no limit.
    """
    todo: list[_Step] = [(old, new, prefix)]
    while todo:
        step = todo.pop()
        if isinstance(step, Change):
            yield step
        elif step[0] != step[1]:
            todo += reversed(list(_steps(objects, *step)))


def _steps(objects: Objects, old: TreeId | None, new: TreeId | None, prefix: Path) -> Iterator[_Step]:
    before = {} if old is None else objects.tree(old).by_name
    after = {} if new is None else objects.tree(new).by_name
    for name in sorted(before.keys() | after.keys()):
        left, right = before.get(name), after.get(name)
        if left != right:
            yield from _entry_steps(objects, left, right, (*prefix, name))


def _entry_steps(objects: Objects, old: TreeEntry | None, new: TreeEntry | None, path: Path) -> Iterator[_Step]:
    old_tree = old.tree if isinstance(old, DirEntry) else None
    new_tree = new.tree if isinstance(new, DirEntry) else None
    if old_tree is None and new_tree is None:
        yield change_of(path, old, new)
        return
    if old is not None and (old_tree is None or _is_empty(objects, old_tree)):
        yield change_of(path, old, None)
    yield old_tree, new_tree, path
    if new is not None and (new_tree is None or _is_empty(objects, new_tree)):
        yield change_of(path, None, new)


def _is_empty(objects: Objects, tree: TreeId) -> bool:
    return not objects.tree(tree).entries


def shared_bytes(objects: Objects, old: FileEntry, new: FileEntry) -> int:
    """Bytes of `new` that lie in chunks which `old` has too."""
    known = {chunk.id for chunk in manifest_of(old, objects).chunks}
    return sum(chunk.size for chunk in manifest_of(new, objects).chunks if chunk.id in known)
