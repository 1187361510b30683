"""The names of commits: `versions/`, `branches/`, `tags/` and `commits/`."""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from shardfs.errors import FsError, ObjectNotFoundError
from shardfs.formats.ids import CommitId
from shardfs.mount.committed import CommittedView
from shardfs.mount.nodes import BRANCHES_INO, COMMITS_INO, TAGS_INO, VERSIONS_INO, Attr, Named, Node, hashed_ino
from shardfs.mount.refs import Refs, RefsState
from shardfs.mount.source import Source
from shardfs.mount.view import View

_FULL_ID = re.compile(rb"[0-9a-f]{64}")
_PREFIX = re.compile(rb"[0-9a-f]{4,63}")  # shorter ones are as good as never unambiguous
# Directories that are not below a commit do not count their subdirectories: 1 is how find(1) is told so.
UNCOUNTED: Final = 1


def directory(ino: int, mtime_ns: int, mode: int = 0o555) -> Attr:
    """Attributes of a directory that is not stored anywhere."""
    return Attr(ino, stat.S_IFDIR | mode, 0, mtime_ns, nlink=UNCOUNTED)


class LinksView(View):
    """A directory of links to commits; names with slashes are links in subdirectories."""

    def __init__(
        self, source: Source, refs: Refs, ino: int, names: Callable[[RefsState], Mapping[bytes, CommitId]]
    ) -> None:
        self._source = source
        self._refs = refs
        self._names = names
        self.root = Node(self, ino, stat.S_IFDIR, b"")

    def lookup(self, parent: Node, name: bytes) -> Node:
        """A link, or a directory of links."""
        if not parent.is_dir:
            raise FsError(errno.ENOTDIR)
        names = self._names(self._refs.state())
        full: bytes = parent.key + name
        if full in names:
            return self._link(full)
        if any(other.startswith(full + b"/") for other in names):
            return self._directory(full + b"/")
        raise FsError(errno.ENOENT)

    def entries(self, node: Node) -> Iterator[Named]:
        """Links and directories of links, in the order of the names."""
        if not node.is_dir:
            raise FsError(errno.ENOTDIR)
        prefix: bytes = node.key
        seen = set()
        for full in self._names(self._refs.state()):
            if not full.startswith(prefix):
                continue
            name, slash, _ = full[len(prefix) :].partition(b"/")
            if name not in seen:
                seen.add(name)
                yield Named(name, self._directory(prefix + name + b"/") if slash else self._link(full))

    def getattr(self, node: Node) -> Attr:
        """Attributes: a link has its commit's time, a directory that of the last change of a ref."""
        state = self._refs.state()
        if node.is_dir:
            return directory(node.ino, state.since_ns)
        id_ = self._commit(node, state)
        time_ns = self._source.objects.commit(id_).time_us * 1000
        return Attr(node.ino, stat.S_IFLNK | 0o777, len(self.readlink(node)), time_ns)

    def readlink(self, node: Node) -> bytes:
        """A relative path to the commit."""
        if node.is_dir:
            raise FsError(errno.EINVAL)
        full: bytes = node.key
        up = b"../" * (full.count(b"/") + 1)
        return up + b"commits/" + self._commit(node, self._refs.state()).hex().encode()

    def _commit(self, node: Node, state: RefsState) -> CommitId:
        id_ = self._names(state).get(node.key)
        if id_ is None:
            raise FsError(errno.ENOENT)
        return id_

    def _link(self, full: bytes) -> Node:
        return Node(self, hashed_ino(b"%d:%b" % (self.root.ino, full)), stat.S_IFLNK, full)

    def _directory(self, prefix: bytes) -> Node:
        return Node(self, hashed_ino(b"%d:%b" % (self.root.ino, prefix)), stat.S_IFDIR, prefix)


def versions_view(source: Source, refs: Refs) -> LinksView:
    """The first-parent history of the mount's branch."""
    return LinksView(source, refs, VERSIONS_INO, lambda state: state.versions)


def branches_view(source: Source, refs: Refs) -> LinksView:
    """All branches."""
    return LinksView(source, refs, BRANCHES_INO, lambda state: state.branches)


def tags_view(source: Source, refs: Refs) -> LinksView:
    """All tags."""
    return LinksView(source, refs, TAGS_INO, lambda state: state.tags)


class CommitsView(View):
    """`commits/`: a directory per commit, found by its id or any unambiguous prefix of four digits or more."""

    def __init__(self, source: Source, refs: Refs, committed: CommittedView) -> None:
        self._source = source
        self._refs = refs
        self._committed = committed
        self.root = Node(self, COMMITS_INO, stat.S_IFDIR)

    def lookup(self, parent: Node, name: bytes) -> Node:
        """The directory of a commit. An ambiguous prefix does not exist."""
        if _FULL_ID.fullmatch(name):
            id_ = CommitId(bytes.fromhex(name.decode("ascii")))
        elif _PREFIX.fullmatch(name):
            found = self._source.commits_with_prefix(name.decode("ascii"))
            if len(found) != 1:
                raise FsError(errno.ENOENT)
            id_ = found[0]
        else:
            raise FsError(errno.ENOENT)
        try:
            return self._committed.root(id_)
        except ObjectNotFoundError:
            if id_ in self._refs.commits():
                raise  # a commit that must be there: EIO, not ENOENT
            raise FsError(errno.ENOENT) from None

    def entries(self, node: Node) -> Iterator[Named]:
        """Every commit that is reachable from a ref, sorted by id."""
        for id_ in sorted(self._refs.commits()):
            yield Named(id_.hex().encode(), self._committed.root(id_))

    def getattr(self, node: Node) -> Attr:
        """Attributes of `commits` itself."""
        return directory(node.ino, self._refs.state().since_ns)
