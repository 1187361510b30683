"""Walks over the commit graph; iterative, so that the length of a history is no limit."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from shardfs.errors import PathNotFoundError
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, TreeId
from shardfs.formats.tree import TreeEntry
from shardfs.history.objects import Objects
from shardfs.history.paths import Path, lookup


def ancestors(objects: Objects, tips: Iterable[CommitId]) -> Iterator[tuple[CommitId, Commit]]:
    """Every commit reachable from `tips`, newest first by time, each once.

    Children come before their parents unless a clock was wrong.
    """
    seen: set[CommitId] = set()
    heap: list[tuple[int, int, CommitId]] = []
    count = 0
    for tip in tips:
        if tip not in seen:
            seen.add(tip)
            heapq.heappush(heap, (-objects.commit(tip).time_us, count, tip))
            count += 1
    while heap:
        _, _, id_ = heapq.heappop(heap)
        commit = objects.commit(id_)
        yield id_, commit
        for parent in commit.parents:
            if parent not in seen:
                seen.add(parent)
                count += 1
                heapq.heappush(heap, (-objects.commit(parent).time_us, count, parent))


def first_parents(objects: Objects, tip: CommitId | None) -> Iterator[tuple[CommitId, Commit]]:
    """The line of first parents from `tip` down, newest first."""
    while tip is not None:
        commit = objects.commit(tip)
        yield tip, commit
        tip = commit.parents[0] if commit.parents else None


def is_ancestor(objects: Objects, old: CommitId, new: CommitId) -> bool:
    """Whether `old` is `new` or one of its ancestors."""
    return any(id_ == old for id_, _ in ancestors(objects, [new]))


def touches(objects: Objects, commit: Commit, path: Path) -> bool:
    """Whether a commit has another entry at `path` than its first parent."""
    before = objects.commit(commit.parents[0]).tree if commit.parents else None
    return _entry_at(objects, commit.tree, path) != (None if before is None else _entry_at(objects, before, path))


def _entry_at(objects: Objects, root: TreeId, path: Path) -> TreeEntry | None:
    try:
        return lookup(objects, root, path)
    except PathNotFoundError:
        return None
