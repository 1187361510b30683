"""The areas of a repository: opened, kept on the tips of their branches, and what they need from the store."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import unquote

from shardfs.formats.ids import Kind, TreeId
from shardfs.staging.area import Area
from shardfs.staging.workspace import Workspace


def open_area(repo: Workspace, branch: str) -> Area:
    """The staging area of a branch; a new one starts at the branch's tip."""
    base, time_ns = _tip_tree(repo, branch)
    return Area.open(repo.store.layout.staging(branch), repo.objects, repo.open_entry, base, time_ns)


def refresh(repo: Workspace, branch: str, area: Area) -> None:
    """Put an area on its branch's tip when the tip moved without it (a pull, a branch set elsewhere)."""
    base, time_ns = _tip_tree(repo, branch)
    if area.base != base:
        with repo.store.lock.hold("stage"):
            base, time_ns = _tip_tree(repo, branch)
            if area.base != base:
                area.rebase(base, time_ns)


def references(repo: Workspace) -> Iterator[tuple[Kind, bytes]]:
    """What the staging areas of all branches need from the store, for garbage collection."""
    folder = repo.store.layout.root / "staging"
    names = sorted(unquote(path.name) for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    for name in names:
        yield from repo.area(name).references()


def _tip_tree(repo: Workspace, branch: str) -> tuple[TreeId | None, int]:
    tip = repo.tip(branch)
    if tip is None:
        return None, 0
    commit = repo.objects.commit(tip)
    return commit.tree, commit.time_us * 1000
