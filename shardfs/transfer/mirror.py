"""A local copy of a remote's history and metadata whose branches are the remote's: what a mount of a URL shows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from shardfs import config
from shardfs.formats.ref import BRANCHES, DEFAULT_BRANCH, TAGS, Head
from shardfs.remotes.base import Remote
from shardfs.store.atomic import os_errors
from shardfs.store.store import Store
from shardfs.transfer.fetch import fetch


def create(path: Path, url: str) -> Store:
    """Make an empty store for a view of `url`.

    Raises:
        AlreadyExistsError: there is a store. ReadOnlyError, OutOfSpaceError, StoreError: by the disk.
    """
    with os_errors(f"cannot create {path}"):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store.create(path)
    config.set_remote(store.layout.config, "origin", url)
    return store


def refresh(store: Store, url: str, remote: Remote) -> None:
    """Bring a view up to date. It lies among caches, which anybody may delete: then it appears again, whole.

    Raises:
        RemoteError, StoreError: the store keeps what it had.
    """
    root = store.layout.root
    if root.exists():
        mirror(store, remote)
        return
    temp = root.with_name(f"{root.name}-{os.urandom(8).hex()}")
    try:
        fresh = create(temp, url)
        try:
            mirror(fresh, remote)
        finally:
            fresh.close()
        with os_errors(f"cannot create {root}"):
            try:
                temp.rename(root)
            except OSError:
                if not root.exists():  # no other process was faster
                    raise
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def mirror(store: Store, remote: Remote) -> None:
    """Fetch, then make branches, tags and HEAD of `store` those of the remote.

    Raises:
        RemoteError: the store keeps what it had.
    """
    fetch(store, remote)
    published = remote.refs()
    with store.lock.hold("fetch"):
        have = store.refs.list(BRANCHES) | store.refs.list(TAGS)
        for name, commit in published.refs.items():
            if name.startswith((BRANCHES, TAGS)) and store.index.has([commit]):
                store.refs.move(name, have.get(name), commit, message="mirror")
        for name in have.keys() - published.refs.keys():
            store.refs.move(name, have[name], None, message="mirror")
        head = Head(published.head or BRANCHES + DEFAULT_BRANCH)
        if store.refs.head() != head:
            store.refs.set_head(head)
