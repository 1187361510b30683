"""The nodes that the kernel holds, by the numbers that it calls them.

These numbers are not the inode numbers that programs see. The kernel has one set of pages and attributes for each, and
never two places for the same directory. So a committed file has one for each path and content, in whatever commit: its
pages and attributes are shared by the versions in which the path has this content. A committed directory has one for
each place. A link has one for each target, so that the kernel may keep the target. Everything else has one, and another
one when a file is replaced from outside while programs have it open.

Numbers are counted up and never used again: two contents cannot meet in one, whatever their hashes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Hashable
from dataclasses import dataclass, field

from shardfs.mount.kernel.messages import ROOT_ID
from shardfs.mount.nodes import Handle, Node
from shardfs.mount.vfs import Vfs


@dataclass(slots=True, eq=False)
class Known:
    """A node that the kernel holds.

    Attributes:
        id: what the kernel calls it.
        node: the node; of several with the same content the first.
        is_committed: it and all below it never change.
        path: below a commit, the path from there; else empty.
        lookups: how often the kernel was told of it.
        is_warm: of a committed directory: its entries have been read, to look at them takes no time.
        handles: open files of the staging area: how one without a name is found.
        is_replaced: its name leads to another node now, and it lives on in its open files.
        opens: open files of any kind.
        backing: the number of the plain file that they pass through to; 0: they use the node's pages.
        place: parent and name as last looked up.
    """

    id: int
    node: Node
    is_committed: bool
    path: bytes
    key: Hashable
    lookups: int = 0
    is_warm: bool = False
    handles: list[Handle] = field(default_factory=list)
    is_replaced: bool = False
    opens: int = 0
    backing: int = 0
    place: tuple[int, bytes] = (0, b"")


class Table:
    """All of them. Safe to share between threads."""

    def __init__(self, vfs: Vfs) -> None:
        """Begin with the root, which the kernel never forgets."""
        self._vfs = vfs
        self._guard = threading.Lock()
        self._numbers = itertools.count(ROOT_ID + 1)
        self.root = Known(ROOT_ID, vfs.root, is_committed=False, path=b"", key=None, lookups=1)
        self._by_id = {ROOT_ID: self.root}
        self._by_key: dict[Hashable, Known] = {}

    def get(self, id_: int) -> Known:
        """What the kernel calls `id_`."""
        return self._by_id[id_]

    def add(self, parent: Known, name: bytes, node: Node, target: bytes | None = None) -> Known:
        """Count one lookup of the entry `name` of a directory.

        Args:
            parent: the directory.
            name: the entry's name.
            node: the entry.
            target: of a symbolic link that is not committed.
        """
        committed = self._vfs.is_committed(node)
        path = parent.path + b"/" + name if parent.is_committed else b""
        key: Hashable
        if not committed:
            key = (node.view, node.ino, target)
        elif node.is_dir:
            key = (parent.id, name, node.ino)
        else:
            key = (path, self._vfs.content_key(node))
        with self._guard:
            known = self._by_key.get(key)
            if known is None:
                known = Known(next(self._numbers), node, committed, path, key)
                self._by_id[known.id] = self._by_key[key] = known
            known.lookups += 1
            known.place = (parent.id, name)
            return known

    def forget(self, id_: int, lookups: int) -> None:
        """The kernel let go of a node as often as that."""
        with self._guard:
            known = self._by_id.get(id_)
            if known is None or known is self.root:
                return
            known.lookups -= lookups
            if known.lookups <= 0:
                del self._by_id[id_]
                if self._by_key.get(known.key) is known:
                    del self._by_key[known.key]

    def renew(self, known: Known) -> None:
        """Give what is found at its place from now on another number; open files keep this one."""
        with self._guard:
            known.is_replaced = True
            if self._by_key.get(known.key) is known:
                del self._by_key[known.key]

    def everything(self) -> list[Known]:
        """What the kernel holds now."""
        with self._guard:
            return list(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)
