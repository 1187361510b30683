"""A local copy of a remote's history and metadata whose branches are the remote's: what a mount of a URL shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from shardfs import config
from shardfs.formats.ref import BRANCHES, DEFAULT_BRANCH, TAGS, Head
from shardfs.progress import Progress
from shardfs.remotes.base import Remote
from shardfs.store.atomic import os_errors
from shardfs.store.store import Store
from shardfs.transfer.fetch import FetchReport, Keep, fetch
from shardfs.transfer.filters import Filter


def create(path: Path, url: str, fill: Callable[[Store], object] = lambda _: None) -> None:
    """Make the store of a view of `url`, whole or not at all; one that another process made meanwhile stays.

    Args:
        path: where it will be.
        url: the remote.
        fill: puts something into the store before anybody sees it.

    Raises:
        ReadOnlyError, OutOfSpaceError, StoreError: by the disk. What `fill` raises.
    """
    temp = path.with_name(f"{path.name}-{os.urandom(8).hex()}")
    try:
        with os_errors(f"cannot create {path}"):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        store = Store.create(temp)
        try:
            config.set_remote(store.layout.config, "origin", url)
            fill(store)
        finally:
            store.close()
        with os_errors(f"cannot create {path}"):
            try:
                temp.rename(path)
            except OSError:
                if not path.exists():  # no other process was faster
                    raise
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def refresh(store: Store, url: str, remote: Remote) -> None:
    """Bring a view up to date. It lies among caches, which anybody may delete: then it appears again, whole.

    Raises:
        RemoteError, StoreError: the store keeps what it had.
        IntegrityError: something is damaged at the remote, and the branch of its HEAD needs it; others are up to date.
    """
    if store.layout.root.exists():
        _show(store, remote)
    else:
        create(store.layout.root, url, lambda fresh: _show(fresh, remote))


def _show(store: Store, remote: Remote) -> None:
    report = mirror(store, remote)
    if report.lost and report.head in report.refs.keys() - report.complete.keys():
        raise report.lost[0]


def mirror(
    store: Store,
    remote: Remote,
    *,
    wanted: Filter | None = None,
    keep: Keep | None = None,
    progress: Progress | None = None,
) -> FetchReport:
    """Fetch, then make branches, tags and HEAD of `store` those of the remote, as far as they are complete here.

    Args as those of `fetch`.

    Returns:
        What was done; what is damaged at the remote is in it.

    Raises:
        RemoteError: by the remote. What is complete here is up to date, if it gave anything.
    """
    report = fetch(store, remote, wanted=wanted, prune=True, is_mirror=True, keep=keep, progress=progress)
    branches = {name: commit for name, commit in report.complete.items() if name.startswith(BRANCHES)}
    with store.lock.hold("fetch"):
        have = store.refs.list(BRANCHES) | store.refs.list(TAGS)
        for name in have.keys() - report.refs.keys():  # first: `a` is in the way of a new `a/b`
            store.refs.move(name, have[name], None, message="mirror")
        for name, commit in branches.items():
            if commit != have.get(name):
                store.refs.move(name, have.get(name), commit, message="mirror")
        head = Head(report.head or BRANCHES + DEFAULT_BRANCH)
        if store.refs.head() != head:
            store.refs.set_head(head)
    report.check_answered()
    return report
