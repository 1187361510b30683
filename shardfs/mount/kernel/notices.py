"""What the kernel holds and is no longer so, told from a thread of its own.

To act on a notice the kernel takes the lock of a directory, and gets it only when the requests that hold it are
answered. So nobody who answers requests sends notices, and nobody waits long for them.
"""

from __future__ import annotations

import threading
from typing import Final

from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.messages import EXPIRE_ONLY, INVAL_ENTRY_OUT, INVAL_INODE_OUT, Notice
from shardfs.mount.kernel.table import Known, Table
from shardfs.mount.vfs import Vfs

_ATTRIBUTES_ONLY: Final = -1  # as offset of INVAL_INODE
_WAIT_S: Final = 0.05  # the kernel takes some 10 us for each


class Notices:
    """Sends them."""

    def __init__(self, vfs: Vfs, channel: Channel, table: Table) -> None:
        self._vfs = vfs
        self._channel = channel
        self._table = table
        self._change = threading.Condition()
        self._asked = self._done = 0
        self._stopped = False
        self._can_expire = False

    def start(self, *, can_expire: bool) -> None:
        """Begin. `can_expire`: the kernel can be told to look a name up again without cutting off who works below."""
        self._can_expire = can_expire
        self._vfs.moved = self.moved
        threading.Thread(target=self._run, name="shardfs-notices", daemon=True).start()

    def moved(self) -> None:
        """Refs have moved. Returns when the kernel has heard it, or soon: the caller may hold what the kernel needs."""
        with self._change:
            self._asked += 1
            mine = self._asked
            self._change.notify_all()
            self._change.wait_for(lambda: self._done >= mine or self._stopped, _WAIT_S)

    def stop(self) -> None:
        """Send no more."""
        with self._change:
            self._stopped = True
            self._change.notify_all()

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._asked > self._done or self._stopped)
                if self._stopped:
                    return
                asked = self._asked
            everything = self._table.everything()
            for known in everything:
                if known.node.is_link and not known.is_committed:
                    self._tell_name(known, 0)  # nobody works in a link: it may be cut off
            with self._change:
                self._done = asked
                self._change.notify_all()
            for known in everything:
                if self._vfs.is_staged(known.node):
                    self._channel.notify(Notice.INVAL_INODE, INVAL_INODE_OUT.pack(known.id, _ATTRIBUTES_ONLY, 0))
                    if self._can_expire:
                        self._tell_name(known, EXPIRE_ONLY)

    def _tell_name(self, known: Known, flags: int) -> None:
        parent, name = known.place
        self._channel.notify(Notice.INVAL_ENTRY, INVAL_ENTRY_OUT.pack(parent, len(name), flags) + name + b"\0")
