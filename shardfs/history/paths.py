"""Paths inside a commit: look up, list, walk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

from shardfs.errors import PathNotFoundError, UsageError
from shardfs.formats.ids import TreeId
from shardfs.formats.tree import DirEntry, FileEntry, Tree, TreeEntry
from shardfs.history.objects import Objects

Path = tuple[bytes, ...]  # names from the root of a tree; () is the root itself

_SHOWN: Final = 5  # paths that one line names


def parse(text: str | bytes) -> Path:
    """The names of a slash-separated path inside a repository; "", "." and "/" are the root.

    Raises:
        UsageError: the path leaves the repository (".."), holds a NUL, or has no bytes.
    """
    try:
        raw = os.fsencode(text)
    except UnicodeEncodeError as error:
        msg = f"not a path: {text!r}"
        raise UsageError(msg) from error
    names = tuple(part for part in raw.split(b"/") if part not in (b"", b"."))
    if b".." in names or b"\0" in raw:
        msg = f"not a path inside the repository: {show(names)}"
        raise UsageError(msg)
    return names


def show(path: Path) -> str:
    """A path for people; bytes that are not UTF-8 become surrogate escapes."""
    return os.fsdecode(b"/".join(path))


def show_some(paths: Sequence[Path]) -> str:
    """The first of some paths for people, and how many more there are: short enough for a line of the log."""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(map(show, paths[:_SHOWN])) + more


def lookup(objects: Objects, root: TreeId, path: Path) -> TreeEntry:
    """The entry at a path; the root is a directory without a name.

    Raises:
        PathNotFoundError: nothing there.
    """
    entry: TreeEntry = DirEntry(b"", root)
    for depth, name in enumerate(path):
        found = objects.tree(entry.tree).by_name.get(name) if isinstance(entry, DirEntry) else None
        if found is None:
            msg = f"{show(path[: depth + 1])} does not exist in this version"
            raise PathNotFoundError(msg)
        entry = found
    return entry


def walk(objects: Objects, root: TreeId, prefix: Path = ()) -> Iterator[tuple[Path, TreeEntry]]:
    """All entries below a tree in depth-first order, directories before their content; not the root itself."""
    stack: list[Iterator[tuple[Path, TreeEntry]]] = [_children(objects.tree(root), prefix)]
    while stack:
        item = next(stack[-1], None)
        if item is None:
            stack.pop()
            continue
        yield item
        path, entry = item
        if isinstance(entry, DirEntry):
            stack.append(_children(objects.tree(entry.tree), path))


def files(objects: Objects, root: TreeId, prefix: Path = ()) -> Iterator[tuple[Path, FileEntry]]:
    """All regular files below a tree."""
    for path, entry in walk(objects, root, prefix):
        if isinstance(entry, FileEntry):
            yield path, entry


def _children(tree: Tree, prefix: Path) -> Iterator[tuple[Path, TreeEntry]]:
    for entry in tree.entries:
        yield (*prefix, entry.name), entry
