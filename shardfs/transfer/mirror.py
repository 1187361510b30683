"""A local copy of a remote's history and metadata whose branches are the remote's: what a mount of a URL shows."""

from __future__ import annotations

from shardfs.formats.ref import BRANCHES, DEFAULT_BRANCH, TAGS, Head
from shardfs.remotes.base import Remote
from shardfs.store.store import Store
from shardfs.transfer.fetch import fetch


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
