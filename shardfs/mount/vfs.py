"""The file system without a kernel: every behaviour of a mount.

Operations take nodes and names and raise only `FsError`. Engines translate between a kernel's requests and these
calls and add nothing. Everything can be called from many threads at once.
"""

from __future__ import annotations

import errno
import functools
import inspect
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

from shardfs.errors import FsError, ShardfsError
from shardfs.formats.ref import BRANCHES
from shardfs.formats.tree import MAX_NAME_SIZE
from shardfs.mount.causes import Causes
from shardfs.mount.committed import CommittedView
from shardfs.mount.control import ControlView
from shardfs.mount.errno import errno_of, worth_recording
from shardfs.mount.names import CommitsView, branches_view, tags_view, versions_view
from shardfs.mount.nodes import Attr, Handle, Named, Node, content_key
from shardfs.mount.refs import Refs
from shardfs.mount.source import Source
from shardfs.mount.staged import StagedView
from shardfs.mount.stats import Stats
from shardfs.mount.top import TopView

P = ParamSpec("P")
R = TypeVar("R")

CONTROL: Final = b".shardfs"  # the directory of the mount's own files
_STATFS_BLOCK: Final = 4096
_CONTENT: Final = frozenset({"data", "value"})  # parameters that hold what programs write, of which nothing is logged


def _operation(method: Callable[Concatenate[Vfs, P], R]) -> Callable[Concatenate[Vfs, P], R]:
    """Turn every error of the package into an `FsError` and remember causes that its errno does not tell."""
    name = method.__name__
    parameters = tuple(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def guarded(self: Vfs, *args: P.args, **kwargs: P.kwargs) -> R:
        self.stats.traffic.asked(name)
        try:
            return method(self, *args, **kwargs)
        except FsError as error:
            self.stats.traffic.failed(errno_of(error))
            raise
        except (ShardfsError, OSError, MemoryError) as error:
            code = errno_of(error)
            self.stats.traffic.failed(code)
            if worth_recording(error, code):
                self.causes.record(_describe(name, dict(zip(parameters, args, strict=False))), code, error)
            raise FsError(code) from error

    return cast("Callable[Concatenate[Vfs, P], R]", guarded)


class Vfs:
    """One mounted repository.

    Attributes:
        root: the root directory.
        causes: why operations failed.
        counters: of what serves it, by name; each value gives a named tuple.
        stats: all counters.
        branch: short name of the branch that this mount shows, None for a detached HEAD.
        moved: called in the middle of the request that found out that refs have moved. For engines, to tell the kernel.
    """

    def __init__(self, source: Source, branch: str | None = None, *, read_only: bool = False, who: str = "") -> None:
        """Show a repository.

        Args:
            source: the repository; it is not closed.
            branch: short name; None for the one that HEAD names now. A later switch does not change it.
            read_only: without staging.
            who: names this mount to another one that wants to write to the same staging area.

        Raises:
            ShardfsError: refs or the staging area cannot be read.
        """
        if branch is None and (full := source.head().branch) is not None:
            branch = full.removeprefix(BRANCHES)
        self.branch = branch
        self.causes = Causes()
        self.counters: dict[str, Callable[[], Any]] = {}
        self.stats = Stats(source, self.counters)
        self.moved: Callable[[], None] = lambda: None
        self._source = source
        self._refs = refs = Refs(source, branch, lambda: self.moved())
        writable = branch is not None and not read_only and not source.read_only
        committed = CommittedView(source)
        control = ControlView(source, branch, self.causes, self.stats, self._follow_commit, writable=writable)
        parts = {
            b"versions": versions_view(source, refs).root,
            b"branches": branches_view(source, refs).root,
            b"tags": tags_view(source, refs).root,
            b"commits": CommitsView(source, refs, committed).root,
        }
        self._staged: StagedView | None = None
        if branch is not None and writable:
            self._staged = StagedView(source, branch, self._follow_tip, who)
            parts[b"staging"] = self._staged.root
        self._tip = refs.state().tip
        self.root = TopView(source, refs, parts, {CONTROL: control.root}).root

    def expire(self) -> None:
        """Look at the refs again at the next use, however short ago the last look was."""
        self._refs.expire()

    def close(self) -> None:
        """Stop background work."""
        self._refs.close()

    def _follow_commit(self) -> None:
        self._refs.expire()
        self._refs.state()

    def _follow_tip(self) -> None:
        """Put staging on the branch's tip when another process moved it."""
        tip = self._refs.state().tip
        if tip != self._tip and self._staged is not None:
            self._staged.rebase()
            self._tip = tip

    # Looking

    @_operation
    def resolve(self, path: bytes) -> Node:
        """The node at a path from the root; links are not followed. "/" and b"" are the root.

        Raises:
            FsError: ENOENT, ENOTDIR, EIO.
        """
        return self._find(path).node

    @_operation
    def stat(self, path: bytes) -> Attr:
        """Attributes of what is at a path: `resolve` and `getattr` in one, with fewer questions."""
        _, node, attr = self._find(path)
        return attr if attr is not None else node.view.getattr(node)

    @_operation
    def parent_of(self, path: bytes) -> tuple[Node, bytes]:
        """The directory that holds a path, and the name in it.

        Raises:
            FsError: ENOENT, ENOTDIR; ENAMETOOLONG for names over 255 bytes.
        """
        folder, _, name = path.rpartition(b"/")
        if len(name) > MAX_NAME_SIZE:
            raise FsError(errno.ENAMETOOLONG)
        parent = self.resolve(folder)
        if not parent.is_dir:
            raise FsError(errno.ENOTDIR)
        return parent, name

    def _find(self, path: bytes) -> Named:
        names = [name for name in path.split(b"/") if name]
        if not names:
            return Named(b"", self.root)
        part = self.root.view.lookup(self.root, names[0])
        return part.view.find(part, names[1:])

    @_operation
    def lookup(self, parent: Node, name: bytes) -> Node:
        """The entry `name` of a directory (ENOENT, ENOTDIR, EIO)."""
        return parent.view.lookup(parent, name)

    @_operation
    def getattr(self, node: Node) -> Attr:
        """Attributes (ENOENT when a mutable node is gone, EIO)."""
        return node.view.getattr(node)

    @_operation
    def readdir(self, node: Node) -> list[Named]:
        """The entries of a directory at one moment, without "." and ".." (ENOTDIR, EIO)."""
        return list(node.view.entries(node))

    @_operation
    def readlink(self, node: Node) -> bytes:
        """The target of a link (EINVAL when it is none)."""
        return node.view.readlink(node)

    @_operation
    def open(self, node: Node, flags: int) -> Handle:
        """Open a file; `flags` are those of the system call (EROFS, EISDIR, EBUSY, EIO)."""
        handle = node.view.open(node, flags)
        self.stats.traffic.opened()
        return handle

    @_operation
    def read(self, handle: Handle, offset: int, size: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end (EIO; the cause is in `causes`)."""
        data = handle.read(offset, size)
        self._count_read(handle, len(data))
        return data

    @_operation
    def read_pieces(self, handle: Handle, offset: int, size: int) -> Sequence[bytes | memoryview]:
        """As `read`, in pieces as they lie in memory."""
        pieces = handle.pieces(offset, size)
        self._count_read(handle, sum(map(len, pieces)))
        return pieces

    def _count_read(self, handle: Handle, size: int) -> None:
        if not self.is_control(handle.node):  # who looks at the counters should not move them
            self.stats.traffic.read(size)

    def is_ready(self, handle: Handle, offset: int, size: int) -> bool:
        """Whether a read takes no longer than to copy the bytes."""
        return handle.is_ready(offset, size)

    @_operation
    def fgetattr(self, handle: Handle) -> Attr:
        """Attributes of an open file, also of one without a name."""
        return handle.getattr()

    def statfs(self) -> dict[str, int]:
        """Space of the disk that the repository is on, in the fields of statvfs."""
        keys = ("f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail")
        try:
            disk = os.statvfs(self._source.store_path)
        except OSError as error:
            raise FsError(errno_of(error)) from error
        found = {key: int(getattr(disk, key)) for key in keys}
        return {**found, "f_bsize": _STATFS_BLOCK, "f_namemax": MAX_NAME_SIZE}

    def is_committed(self, node: Node) -> bool:
        """Whether a node and all below it never change."""
        return isinstance(node.view, CommittedView)

    def content_key(self, node: Node) -> bytes:
        """What tells a committed node from every other content, without the chance of a collision."""
        return content_key(node.key.entry)

    def is_control(self, node: Node) -> bool:
        """Whether a node is one of the mount's own files, or their directory."""
        return isinstance(node.view, ControlView)

    def is_staged(self, node: Node) -> bool:
        """Whether a node belongs to the staging area."""
        return node.view is self._staged

    def lists_attributes(self, node: Node) -> bool:
        """Whether attributes of a directory's entries cost little; those of commits take a tree each."""
        return not isinstance(node.view, CommitsView)

    # Changing

    def require_writable(self, node: Node) -> None:
        """Do nothing (EROFS outside of staging)."""
        if not isinstance(node.view, StagedView | ControlView):
            raise FsError(errno.EROFS)

    @_operation
    def create(self, parent: Node, name: bytes, mode: int, flags: int) -> Handle:
        """Make a file and open it (EROFS, EEXIST with O_EXCL, EBUSY when another mount writes)."""
        handle = parent.view.create(parent, name, mode, flags)
        self.stats.traffic.opened()
        return handle

    @_operation
    def mknod(self, parent: Node, name: bytes, mode: int) -> Node:
        """Make an empty regular file (EPERM for devices, sockets and pipes)."""
        if not stat.S_ISREG(mode) and stat.S_IFMT(mode):
            raise FsError(errno.EPERM)
        return parent.view.mknod(parent, name, mode)

    @_operation
    def mkdir(self, parent: Node, name: bytes, mode: int) -> Node:
        """Make a directory (EROFS, EEXIST)."""
        return parent.view.mkdir(parent, name, mode)

    @_operation
    def symlink(self, parent: Node, name: bytes, target: bytes) -> Node:
        """Make a symbolic link (EROFS, EEXIST)."""
        return parent.view.symlink(parent, name, target)

    @_operation
    def unlink(self, parent: Node, name: bytes) -> None:
        """Remove a file or link (EROFS, ENOENT, EISDIR)."""
        parent.view.unlink(parent, name)

    @_operation
    def rmdir(self, parent: Node, name: bytes) -> None:
        """Remove an empty directory (EROFS, ENOENT, ENOTDIR, ENOTEMPTY)."""
        parent.view.rmdir(parent, name)

    @_operation
    def rename(self, parent: Node, name: bytes, new_parent: Node, new_name: bytes, flags: int = 0) -> None:
        """Move an entry, over an existing one unless RENAME_NOREPLACE; EXDEV out of or into a read-only part."""
        if parent.view is not new_parent.view:
            raise FsError(errno.EXDEV)
        parent.view.rename(parent, name, new_parent, new_name, flags)

    @_operation
    def chmod(self, node: Node, mode: int) -> None:
        """Set permission bits (EROFS)."""
        node.view.chmod(node, mode)

    @_operation
    def utimens(self, node: Node, mtime_ns: int) -> None:
        """Set the modification time (EROFS)."""
        node.view.utimens(node, mtime_ns)

    @_operation
    def futimens(self, handle: Handle, mtime_ns: int) -> None:
        """Set the modification time of an open file."""
        handle.utimens(mtime_ns)

    @_operation
    def truncate(self, node: Node, size: int) -> None:
        """Cut or extend a file (EROFS, EISDIR)."""
        node.view.truncate(node, size)

    @_operation
    def ftruncate(self, handle: Handle, size: int) -> None:
        """Cut or extend an open file."""
        handle.truncate(size)

    @_operation
    def write(self, handle: Handle, offset: int, data: bytes | memoryview) -> int:
        """Write all of `data` (ENOSPC, EBADF); returns its length."""
        size = handle.write(offset, data)
        self.stats.traffic.written(size)
        return size

    @_operation
    def flush(self, handle: Handle) -> None:
        """A descriptor was closed; an error becomes the result of close()."""
        handle.flush()

    @_operation
    def fsync(self, handle: Handle) -> None:
        """Make an open file durable."""
        handle.fsync()

    @_operation
    def fsync_dir(self, node: Node) -> None:
        """Make changes of names durable."""
        node.view.fsync_dir(node)

    @_operation
    def release(self, handle: Handle) -> None:
        """The last descriptor and mapping of an open file is gone."""
        self.stats.traffic.closed()
        handle.release()

    # Extended attributes

    @_operation
    def get_xattr(self, node: Node, name: bytes) -> bytes:
        """The value of an attribute (ENODATA)."""
        return node.view.get_xattr(node, name)

    @_operation
    def list_xattrs(self, node: Node) -> list[bytes]:
        """Names of attributes; magic ones are left out."""
        return node.view.list_xattrs(node)

    @_operation
    def set_xattr(self, node: Node, name: bytes, value: bytes, flags: int = 0) -> None:
        """Set an attribute (EROFS; `flags` as of setxattr(2))."""
        node.view.set_xattr(node, name, value, flags)

    @_operation
    def remove_xattr(self, node: Node, name: bytes) -> None:
        """Remove an attribute (EROFS, ENODATA)."""
        node.view.remove_xattr(node, name)


def _describe(operation: str, args: Mapping[str, Any]) -> str:
    """What was asked, for people: the operation, the content it was about and its names and numbers, but no content."""
    words = [operation]
    for parameter, arg in args.items():
        if isinstance(arg, Handle):
            arg = arg.node
        if isinstance(arg, Node):
            words.append(_subject(arg))
        elif parameter in _CONTENT:
            words.append(str(len(arg)))
        elif isinstance(arg, bytes):
            words.append(os.fsdecode(arg[:MAX_NAME_SIZE]))
        elif isinstance(arg, int):
            words.append(str(arg))
    return " ".join(words)


def _subject(node: Node) -> str:
    entry = getattr(node.key, "entry", None)
    name = getattr(entry, "name", b"") or b""
    commit = getattr(node.key, "commit", b"")
    return f"{commit.hex()[:12]}:{os.fsdecode(name)}" if commit else node.view.describe(node)
