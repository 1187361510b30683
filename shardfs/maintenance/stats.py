"""What a store holds and what it costs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from shardfs.formats.ids import CommitId, TreeId
from shardfs.formats.tree import DirEntry, FileEntry
from shardfs.history.objects import Objects
from shardfs.store.closure import new_commits
from shardfs.store.index import LOCAL
from shardfs.store.store import Store
from shardfs.transfer import plan
from shardfs.transfer.plan import Reachable


@dataclass(frozen=True, slots=True)
class CommitStats:
    """One version.

    Attributes:
        id: its commit.
        subject: first line of its message.
        files: regular files in it.
        logical_bytes: sum of their sizes.
        new_bytes: stored bytes of what no older commit has; at a remote when it was not fetched.
    """

    id: CommitId
    subject: str
    files: int
    logical_bytes: int
    new_bytes: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A whole store.

    Attributes:
        logical_bytes: sum of the file sizes of all commits.
        stored_bytes: size of all packs here.
        commits, trees, manifests, chunks: how many are reachable, each counted once.
        remote_chunks: chunks among them that no pack here holds.
        files: regular files in all commits, the same one counted in each.
        packs: packs here.
        versions: one row for each commit, oldest first.
    """

    logical_bytes: int
    stored_bytes: int
    commits: int
    trees: int
    manifests: int
    chunks: int
    remote_chunks: int
    files: int
    packs: int
    versions: tuple[CommitStats, ...]

    @property
    def objects(self) -> int:
        """Commits, trees and manifests."""
        return self.commits + self.trees + self.manifests


def stats(store: Store, objects: Objects, tips: Iterable[CommitId]) -> Stats:
    """Counts and bytes of everything that is reachable from `tips`.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: an object on the way cannot be read.
    """
    found = Reachable()
    sizes = _TreeSizes(objects)
    rows: list[CommitStats] = []
    for id_ in new_commits(objects.commit, tips, ()):
        counts = (len(found.chunks), len(found.manifests), len(found.trees))
        plan.reachable(objects, [id_], found)
        new: list[bytes] = [id_, *islice(found.chunks, counts[0], None)]
        new += [*islice(found.manifests, counts[1], None), *islice(found.trees, counts[2], None)]
        stored = sum(location.entry.stored_size for location in store.index.find_many(new).values())
        commit = objects.commit(id_)
        size = sizes.of(commit.tree)
        rows.append(CommitStats(id_, commit.subject, size.files, size.bytes, stored))
    packs = store.index.packs(LOCAL)
    return Stats(
        logical_bytes=sum(row.logical_bytes for row in rows),
        stored_bytes=sum(packs.values()),
        commits=len(found.commits),
        trees=len(found.trees),
        manifests=len(found.manifests),
        chunks=len(found.chunks),
        remote_chunks=len(found.chunks) - len(store.index.has(found.chunks, local=True)),
        files=sum(row.files for row in rows),
        packs=len(packs),
        versions=tuple(rows),
    )


class _Size(NamedTuple):
    files: int
    bytes: int


class _TreeSizes:
    """Sizes of trees; each tree is read once however many commits hold it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._known: dict[TreeId, _Size] = {}

    def of(self, root: TreeId) -> _Size:
        stack = [root]
        while stack:
            tree = self._objects.tree(stack[-1])
            inner = [e.tree for e in tree.entries if isinstance(e, DirEntry)]
            if waiting := [id_ for id_ in inner if id_ not in self._known]:
                stack += waiting
                continue
            files = [e.size for e in tree.entries if isinstance(e, FileEntry)]
            parts = [self._known[id_] for id_ in inner]
            self._known[stack.pop()] = _Size(
                len(files) + sum(p.files for p in parts), sum(files) + sum(p.bytes for p in parts)
            )
        return self._known[root]
