"""Magic extended attributes: what is known about the stored form of a file.

They are hidden from listings, so that cp and rsync do not copy them.
"""

from __future__ import annotations

import errno
import os
from typing import Final

from shardfs.errors import FsError
from shardfs.formats.ids import CommitId
from shardfs.formats.tree import DirEntry, FileEntry, TreeEntry
from shardfs.mount.source import FileFacts, Source

PREFIX: Final = b"user.shardfs."
_OF_CONTENT: Final = frozenset((b"chunks", b"cached", b"stored", b"ratio", b"codec", b"depth"))


def magic_xattr(source: Source, name: bytes, entry: TreeEntry | None, commit: CommitId | None) -> bytes:
    """The value of one magic attribute, ASCII text without a newline; that of `realpath` is a path.

    Args:
        source: the repository.
        name: full attribute name.
        entry: the content by reference; None when nothing is stored yet.
        commit: the commit that the content was reached through, if any.

    Raises:
        FsError: ENODATA, no such attribute here.
    """
    key = name.removeprefix(PREFIX) if name.startswith(PREFIX) else b""
    if key == b"commit" and commit is not None:
        return commit.hex().encode()
    if isinstance(entry, DirEntry) and key == b"manifest":
        return entry.tree.hex().encode()
    if isinstance(entry, FileEntry):
        if key == b"manifest" and (id_ := entry.manifest or entry.chunk):
            return id_.hex().encode()
        if key == b"realpath" and (path := source.plain_path(entry)) is not None:
            return os.fsencode(path)
        if key in _OF_CONTENT:
            return _of_content(key, entry, source.file_facts(entry))
    raise FsError(errno.ENODATA)


def _of_content(key: bytes, entry: FileEntry, facts: FileFacts) -> bytes:
    if key == b"ratio":
        return f"{entry.size / facts.stored:.3f}".encode() if facts.stored else b"1.000"
    if key == b"codec":
        return ",".join(facts.codecs).encode()
    numbers = {b"chunks": facts.chunks, b"cached": facts.cached, b"stored": facts.stored, b"depth": facts.depth}
    return str(numbers[key]).encode()
