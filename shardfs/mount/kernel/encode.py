"""Values of the vfs as the kernel wants them."""

from __future__ import annotations

from shardfs.mount.kernel.messages import ATTR, ATTR_OUT, DIRENT, ENTRY_OUT, ENTRY_OUT_SIZE
from shardfs.mount.kernel.policy import Lifetime
from shardfs.mount.nodes import Attr

_BILLION = 10**9
_BLOCK_SIZE = 128 << 10  # st_blksize: what readers with their own buffer ask for
NO_ENTRY = bytes(ENTRY_OUT_SIZE)  # in a listing: look it up if you want to know more


class Encoder:
    """Everything belongs to one owner: whoever mounted."""

    def __init__(self, uid: int, gid: int) -> None:
        self._owner = (uid, gid)

    def attr(self, attr: Attr) -> bytes:
        """Attributes. The time of the last access is that of the last change."""
        mtime, mtime_ns = divmod(attr.mtime_ns, _BILLION)
        ctime, ctime_ns = divmod(attr.mtime_ns if attr.ctime_ns is None else attr.ctime_ns, _BILLION)
        times = (mtime % (1 << 64), mtime % (1 << 64), ctime % (1 << 64), mtime_ns, mtime_ns, ctime_ns)
        who = (attr.mode, attr.nlink, *self._owner)
        return ATTR.pack(attr.ino, attr.size, attr.blocks, *times, *who, 0, _BLOCK_SIZE, 0)

    def attr_out(self, attr: Attr, seconds: float) -> bytes:
        """The answer to GETATTR."""
        return ATTR_OUT.pack(*_split(seconds), 0) + self.attr(attr)

    def entry_out(self, id_: int, attr: Attr, lifetime: Lifetime) -> bytes:
        """The answer to LOOKUP and whatever makes an entry."""
        entry, entry_ns = _split(lifetime.entry)
        seconds, nanoseconds = _split(lifetime.attr)
        return ENTRY_OUT.pack(id_, 0, entry, seconds, entry_ns, nanoseconds) + self.attr(attr)


def absent(seconds: float) -> bytes:
    """The answer to LOOKUP that there is no such entry, and how long that will be so."""
    whole, nanoseconds = _split(seconds)
    return ENTRY_OUT.pack(0, 0, whole, 0, nanoseconds, 0) + bytes(ATTR.size)


def dirent(ino: int, position: int, name: bytes, type_: int) -> bytes:
    """One name of a listing; `position` is where the listing goes on behind it."""
    made = DIRENT.pack(ino, position, len(name), type_ >> 12) + name
    return made + bytes(-len(made) % 8)


def _split(seconds: float) -> tuple[int, int]:
    whole = int(seconds)
    return whole, int((seconds - whole) * _BILLION)
