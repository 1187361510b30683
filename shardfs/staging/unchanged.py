"""Which directories of a work tree are as staging shows them, told for all files of a directory at once.

The stat cache remembers that the files of a directory, with the stats they had, were those of a committed tree. While
their stats are the same and staging still shows that tree there, nothing has to be compared file by file, and no tree
is loaded: the cache knows the trees of the directories below as well.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping

from shardfs.formats.ids import TreeId
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry
from shardfs.staging.comparing import Comparer, Listing, is_tracked
from shardfs.staging.nodes import NodeStat, content_key
from shardfs.staging.scan import Folder
from shardfs.staging.source import Stamp
from shardfs.staging.statcache import StatCache


class Unchanged:
    """Ask about directories in the order of `Scanner.scan`, those above before those below. For one thread."""

    def __init__(self, listing: Listing, comparer: Comparer, cache: StatCache) -> None:
        self._listing = listing
        self._comparer = comparer
        self._cache = cache
        self._trees: dict[bytes, TreeId | None] = {}

    def holds(self, folder: Folder) -> bool:
        """Whether the files and links in a directory are those of staging, no more and no less."""
        tree = self._tree(folder.path)
        return tree is not None and folder.whole and self._cache.is_settled(folder, tree)

    def learn(self, folder: Folder) -> None:
        """Have `holds` know a directory from now on, if it is as staging shows it."""
        tree = self._tree(folder.path)
        if tree is None or not folder.whole:
            return
        nodes = self._listing.folder(folder.path)
        if len(folder.names) != sum(map(is_tracked, nodes.values())):
            return
        contents = self._contents(folder, nodes)
        if contents is not None:
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

    def _contents(self, folder: Folder, nodes: Mapping[bytes, NodeStat]) -> list[bytes] | None:
        """What the files of a folder hold, if each is as staging has it and would not change without a trace."""
        contents = []
        now = time.time_ns()
        for path, status in folder.found():
            node = nodes.get(path.rpartition(b"/")[2])
            entry = node.entry if node is not None else None
            if stat.S_ISLNK(status.st_mode):
                known = b""
                if not isinstance(entry, LinkEntry) or Stamp.of(status).is_racy(now):
                    return None
            else:
                key = self._cache.key(path, status)
                if not isinstance(entry, FileEntry) or key is None or key != content_key(entry):
                    return None
                known = key
            if not self._comparer.same(path, status, entry):
                return None
            contents.append(known)
        return contents
