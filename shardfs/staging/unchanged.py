"""Which directories of a work tree are as staging shows them, told for all files of a directory at once.

The stat cache remembers that the files of a directory, with the stats they had, were those of a committed tree. While
their stats are the same and staging still shows that tree there, nothing has to be compared file by file, and no tree
is loaded: the cache knows the trees of the directories below as well.
"""

from __future__ import annotations

import stat
import time

from shardfs.formats.ids import TreeId
from shardfs.formats.tree import DirEntry
from shardfs.staging.comparing import Listing, is_tracked
from shardfs.staging.scan import Folder
from shardfs.staging.source import Stamp
from shardfs.staging.statcache import StatCache


class Unchanged:
    """Ask about directories in the order of `Scanner.scan`, those above before those below. For one thread."""

    def __init__(self, listing: Listing, cache: StatCache) -> None:
        self._listing = listing
        self._cache = cache
        self._trees: dict[bytes, TreeId | None] = {}

    def holds(self, folder: Folder) -> bool:
        """Whether the files and links in a directory are those of staging, no more and no less."""
        tree = self._tree(folder.path)
        return tree is not None and folder.whole and self._cache.is_settled(folder, tree)

    def learn(self, folder: Folder) -> None:
        """Have `holds` know a directory from now on; each of its files was just found to be as staging has it."""
        tree = self._tree(folder.path)
        if tree is None or not folder.whole:
            return
        nodes = self._listing.folder(folder.path)
        contents = self._contents(folder)
        if contents is not None and len(contents) == sum(map(is_tracked, nodes.values())):
            below = {name: node.entry.tree for name, node in nodes.items() if isinstance(node.entry, DirEntry)}
            self._cache.settle(folder, tree, contents, below)

    def _tree(self, path: bytes) -> TreeId | None:
        """The committed tree that staging shows at `path`, without loading the one above if that is known."""
        if path not in self._trees:
            folder, _, name = path.rpartition(b"/")
            above = self._tree(folder) if path else None
            below = self._cache.below(folder, above) if above is not None else None
            self._trees[path] = self._listing.tree(path) if below is None else below.get(name)
        return self._trees[path]

    def _contents(self, folder: Folder) -> list[bytes] | None:
        """What the files of a folder hold, if none of them can have changed without a trace in its times."""
        contents = []
        now = time.time_ns()
        for path, status in folder.found():
            if stat.S_ISLNK(status.st_mode):
                known = None if Stamp.of(status).is_racy(now) else b""
            else:
                known = self._cache.key(path, status)
            if known is None:
                return None
            contents.append(known)
        return contents
