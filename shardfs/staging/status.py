"""How staging differs from the tip, and the work tree from staging."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shardfs.formats.ids import CommitId
from shardfs.history.paths import show
from shardfs.staging.adding import stat_cache
from shardfs.staging.changes import StagedChange
from shardfs.staging.comparing import Comparer, Listing, is_tracked
from shardfs.staging.nodes import NodeKind
from shardfs.staging.scan import Scanner
from shardfs.staging.statcache import StatCache
from shardfs.staging.unchanged import Unchanged
from shardfs.staging.workspace import Workspace


@dataclass(slots=True)
class Status:
    """The state of a repository.

    Attributes:
        branch: the current branch, None when HEAD is detached.
        head: the commit at HEAD, None before the first one.
        staged: what the next commit would change.
        unfinished: staged files that a program is writing to now; a commit takes their last whole content.
        modified: files of the work tree that differ from staging.
        missing: files that were added or checked out here and are gone from the work tree; staging keeps them.
        untracked: files that staging does not have, whole new directories as one path with "/" at its end.
    """

    branch: str | None
    head: CommitId | None
    staged: list[StagedChange] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    modified: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    untracked: list[str] = field(default_factory=list)


def status(repo: Workspace) -> Status:
    """See `Repository.status`. Files that did not change since they were read last are not read.

    A repository that cannot be written to, or whose HEAD is detached, has no staging to compare with.
    """
    result = Status(repo.current_branch(), repo.head_commit())
    if result.branch is None or repo.read_only:
        return result
    area = repo.area()
    result.staged = sorted(area.changes(), key=lambda change: change.path)
    result.unfinished = [show(path) for path in area.unfinished()]
    if repo.root is not None:
        _compare(repo, repo.root, Listing(area), stat_cache(repo), result)
    return result


def _compare(repo: Workspace, root: Path, listing: Listing, cache: StatCache, result: Status) -> None:
    comparer = Comparer(root, repo.objects, cache)
    unchanged = Unchanged(listing, cache)
    refused: list[bytes] = []
    untracked: list[bytes] = []
    there: dict[bytes, frozenset[bytes]] = {path: frozenset() for path in cache.folders()}
    for folder in Scanner(root, refused=refused).scan():
        if unchanged.holds(folder):
            there.pop(folder.path, None)
            continue
        same = True
        for path, info in folder.found():
            node = listing.at(path)
            if node is None or not is_tracked(node):
                untracked.append(path)
                same = False
            elif not comparer.same(path, info, node.entry):
                result.modified.append(os.fsdecode(path))
                same = False
        if same:
            unchanged.learn(folder)
        there[folder.path] = frozenset(folder.joined_names().split(b"\0"))
    result.untracked = _collapse(untracked, listing)
    result.missing = [os.fsdecode(path) for path in _missing(there, listing, cache)]
    cache.save(repo.store.index.packs())


def _missing(there: Mapping[bytes, frozenset[bytes]], listing: Listing, cache: StatCache) -> list[bytes]:
    """Files that the cache knows and staging has, in directories whose names that are there are given."""
    known = (
        folder + b"/" + name if folder else name
        for folder, names in there.items()
        for name in cache.names(folder)
        if name not in names
    )
    return sorted(path for path in known if is_tracked(listing.at(path)))


def _collapse(untracked: list[bytes], listing: Listing) -> list[str]:
    """Paths, with directories that staging does not have in place of what is in them."""
    shown: dict[str, None] = {}
    for path in untracked:
        names = path.split(b"/")
        for depth in range(1, len(names)):
            folder = b"/".join(names[:depth])
            node = listing.at(folder)
            if node is None or node.kind is not NodeKind.DIR:
                shown[os.fsdecode(folder) + "/"] = None
                break
        else:
            shown[os.fsdecode(path)] = None
    return list(shown)
