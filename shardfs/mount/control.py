"""`.shardfs/`: not listed, but there. stats.json, config.json, commit and errors."""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from shardfs import __version__
from shardfs.errors import FsError, ShardfsError, UsageError
from shardfs.formats.commit import MAX_MESSAGE_SIZE
from shardfs.mount.causes import Causes
from shardfs.mount.job import public_url
from shardfs.mount.names import directory
from shardfs.mount.nodes import CONTROL_INO, FIRST_CONTROL_FILE_INO, Attr, Handle, Named, Node
from shardfs.mount.source import Source
from shardfs.mount.stats import Stats
from shardfs.mount.view import View

_COMMIT: Final = b"commit"


class _Snapshot(Handle):
    """A generated text, fixed when it was opened."""

    direct_io = True

    def __init__(self, node: Node, text: bytes) -> None:
        super().__init__(node)
        self._text = text

    def read(self, offset: int, size: int) -> bytes:
        return self._text[offset : offset + size]


class _Door(Handle):
    """An open `commit` file: what was written is committed when a descriptor of it is closed."""

    direct_io = True

    def __init__(self, node: Node, view: ControlView) -> None:
        super().__init__(node)
        self._view = view
        self._text = bytearray()
        self._guard = threading.Lock()

    def read(self, offset: int, size: int) -> bytes:
        return self._view.result[offset : offset + size]

    def write(self, offset: int, data: bytes | memoryview) -> int:
        with self._guard:
            if max(offset, len(self._text)) + len(data) > MAX_MESSAGE_SIZE:
                raise FsError(errno.EFBIG)
            self._text += data  # appends, whatever the offset: shells write line by line
        return len(data)

    def truncate(self, size: int) -> None:
        with self._guard:
            del self._text[size:]

    def utimens(self, mtime_ns: int) -> None:
        pass

    def flush(self) -> None:
        with self._guard:
            text, self._text = bytes(self._text), bytearray()
        if text:
            self._view.commit(text)


class ControlView(View):
    """The control directory of a mount."""

    def __init__(
        self,
        source: Source,
        branch: str | None,
        causes: Causes,
        stats: Stats,
        expire: Callable[[], None],
        *,
        writable: bool,
    ) -> None:
        """Args: expire: called when a commit moved a ref."""
        self._source = source
        self._branch = branch
        self._expire = expire
        self._writable = writable
        self._stats = stats
        self.result = b""  # of the last commit through the mount, one line
        self.root = Node(self, CONTROL_INO, stat.S_IFDIR)
        self._texts: dict[bytes, Callable[[], bytes]] = {
            b"stats.json": self._counters,
            b"config.json": self._config,
            b"errors": causes.text,
            _COMMIT: lambda: self.result,
        }
        self._files = {
            name: Node(self, FIRST_CONTROL_FILE_INO + number, stat.S_IFREG, name)
            for number, name in enumerate(self._texts)
        }

    def lookup(self, parent: Node, name: bytes) -> Node:
        """One of the files."""
        if not parent.is_dir:
            raise FsError(errno.ENOTDIR)
        if name not in self._files:
            raise FsError(errno.ENOENT)
        return self._files[name]

    def entries(self, node: Node) -> Iterator[Named]:
        """All of the files."""
        if not node.is_dir:
            raise FsError(errno.ENOTDIR)
        for name, file in self._files.items():
            yield Named(name, file)

    def getattr(self, node: Node) -> Attr:
        """Sizes are those of this moment."""
        if node.is_dir:
            return directory(node.ino, self._stats.started_ns)
        mode = 0o644 if node.key == _COMMIT and self._writable else 0o444
        return Attr(node.ino, stat.S_IFREG | mode, len(self._texts[node.key]()), time.time_ns())

    def open(self, node: Node, flags: int) -> Handle:
        """Texts are fixed at open; `commit` takes a message."""
        if node.is_dir:
            raise FsError(errno.EISDIR)
        writes = flags & os.O_ACCMODE != os.O_RDONLY
        if node.key == _COMMIT and self._writable:
            return _Door(node, self)
        if writes:
            raise FsError(errno.EROFS)
        return _Snapshot(node, self._texts[node.key]())

    def truncate(self, node: Node, size: int) -> None:
        """Nothing to do for `commit`: every message starts empty."""
        if node.key != _COMMIT or not self._writable:
            raise FsError(errno.EROFS)

    def utimens(self, node: Node, mtime_ns: int) -> None:
        """Accepted for `commit` and without effect, so that `touch` and `cp` work."""
        self.truncate(node, 0)

    def commit(self, text: bytes) -> None:
        """Commit the branch's staging area with this message.

        Raises:
            UsageError: blank. What `Repository.commit` raises.
        """
        message = text.decode("utf-8", "replace").strip()
        try:
            if not message:
                msg = "the message is blank; write what the commit is about"
                raise UsageError(msg)
            id_ = self._source.commit(message, branch=self._branch)
        except ShardfsError as error:
            self.result = b"error: " + str(error).encode("utf-8", "replace") + b"\n"
            raise
        self._expire()
        self.result = id_.hex().encode() + b"\n"

    def _counters(self) -> bytes:
        return _json({key: _plain(value) for key, value in self._stats.snapshot().items()})

    def _config(self) -> bytes:
        # A view of a remote has no repository that commands could work on. With --allow-other everybody reads this.
        url = self._source.url
        place = {"url": public_url(url)} if url else {"repository": str(self._source.store_path)}
        return _json(
            {
                **place,
                "branch": self._branch,
                "pid": os.getpid(),
                "version": __version__,
                "writable": self._writable,
            }
        )


def _plain(value: Any) -> Any:
    """Named tuples as objects with their names."""
    return value._asdict() if hasattr(value, "_asdict") else value


def _json(value: object) -> bytes:
    return json.dumps(value, indent=2, default=str).encode() + b"\n"
