"""What the kernel holds and is no longer so, told from a thread of its own.

The kernel takes the lock of a directory to act on such a notice, and gives it to us only when the requests that hold it
are answered. So nobody who answers requests may wait for a notice.
"""

from __future__ import annotations

import threading

from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.messages import EXPIRE_ONLY, INVAL_ENTRY_OUT, INVAL_INODE_OUT, Notice
from shardfs.mount.kernel.table import Table

_ATTRIBUTES_ONLY = -1  # as offset of INVAL_INODE


class Notices:
    """Sends them."""

    def __init__(self, channel: Channel, table: Table) -> None:
        self._channel = channel
        self._table = table
        self._due = threading.Event()
        self._can_expire = False
        self._stopped = False

    def start(self, *, can_expire: bool) -> None:
        """Begin. `can_expire`: the kernel can ask for a name again without cutting off who works below it."""
        self._can_expire = can_expire
        threading.Thread(target=self._run, name="shardfs-notices", daemon=True).start()

    def staging_moved(self) -> None:
        """Another process moved what the staging area is based on. Returns at once."""
        self._due.set()

    def stop(self) -> None:
        """Send no more."""
        self._stopped = True
        self._due.set()

    def _run(self) -> None:
        while True:
            self._due.wait()
            if self._stopped:
                return
            self._due.clear()
            for known in self._table.staged():
                self._channel.notify(Notice.INVAL_INODE, INVAL_INODE_OUT.pack(known.id, _ATTRIBUTES_ONLY, 0))
                parent, name = known.place
                if self._can_expire:
                    body = INVAL_ENTRY_OUT.pack(parent, len(name), EXPIRE_ONLY) + name + b"\0"
                    self._channel.notify(Notice.INVAL_ENTRY, body)
