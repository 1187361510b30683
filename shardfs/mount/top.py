"""The root directory of a mount and `latest`."""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator, Mapping

from shardfs.errors import FsError
from shardfs.mount.names import directory
from shardfs.mount.nodes import LATEST_INO, ROOT_INO, Attr, Named, Node
from shardfs.mount.refs import Refs
from shardfs.mount.source import Source
from shardfs.mount.view import View


class TopView(View):
    """The root: the other views by name, and the link `latest`."""

    def __init__(self, source: Source, refs: Refs, parts: Mapping[bytes, Node], hidden: Mapping[bytes, Node]) -> None:
        """Args: parts: listed directories. hidden: directories that are found but not listed."""
        self._source = source
        self._refs = refs
        self._parts = dict(parts)
        self._hidden = dict(hidden)
        self.root = Node(self, ROOT_INO, stat.S_IFDIR)
        self._latest = Node(self, LATEST_INO, stat.S_IFLNK)

    def lookup(self, parent: Node, name: bytes) -> Node:
        """A part, or `latest` once there is a commit."""
        if not parent.is_dir:
            raise FsError(errno.ENOTDIR)
        if name == b"latest" and self._refs.state().tip is not None:
            return self._latest
        found = self._parts.get(name) or self._hidden.get(name)
        if found is None:
            raise FsError(errno.ENOENT)
        return found

    def entries(self, node: Node) -> Iterator[Named]:
        """What is not hidden."""
        if not node.is_dir:
            raise FsError(errno.ENOTDIR)
        if self._refs.state().tip is not None:
            yield Named(b"latest", self._latest)
        for name, part in self._parts.items():
            yield Named(name, part)

    def getattr(self, node: Node) -> Attr:
        """Attributes; `latest` has the time of its commit."""
        state = self._refs.state()
        if node.is_dir:
            return directory(node.ino, state.since_ns)
        if state.tip is None:
            raise FsError(errno.ENOENT)
        time_ns = self._source.objects.commit(state.tip).time_us * 1000
        return Attr(node.ino, stat.S_IFLNK | 0o777, len(self.readlink(node)), time_ns)

    def readlink(self, node: Node) -> bytes:
        """A relative path to the tip of the mount's branch."""
        if node.is_dir:
            raise FsError(errno.EINVAL)
        tip = self._refs.state().tip
        if tip is None:
            raise FsError(errno.ENOENT)
        return b"commits/" + tip.hex().encode()
