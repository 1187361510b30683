"""Files that the kernel reads and writes itself, in plain files that their handles name ("backing files").

The open files of a node all use its pages, or all pass through to one backing file; the kernel fails open(2) with EIO
otherwise (fs/fuse/iomode.c). So the first one decides for all that are open with it. The kernel lets go of an open file
before it sends RELEASE, so what is counted here is never less than what it has.
"""

from __future__ import annotations

import errno
import logging
import os
import threading

from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.table import Known
from shardfs.mount.nodes import Handle

_log = logging.getLogger(__name__)


class Passthrough:
    """Decides how files are opened. Safe to share between threads.

    Attributes:
        is_on: the kernel can do it and lets this process.
        opened: files opened that way so far.
        refused: plain files that the kernel did not take.
    """

    def __init__(self, channel: Channel) -> None:
        """Off until the kernel has agreed to it."""
        self._channel = channel
        self._guard = threading.Lock()
        self._said: set[int | None] = set()
        self.is_on = False
        self.opened = self.refused = 0

    def begin(self, known: Known, handle: Handle) -> int:
        """A file is opened: the number of the backing file to open it with, 0 to use the node's pages."""
        may = self.is_on and (known.backing or not known.opens)
        # Asked for also where it is not needed: so the handle knows that it may be written to. May wait for a lock.
        plain = handle.backing() if may else None
        with self._guard:
            if plain is not None and not known.opens:
                known.backing = self._register(plain)
            known.opens += 1
            self.opened += known.backing != 0
            return known.backing

    def end(self, known: Known) -> None:
        """A file that was opened so is closed."""
        with self._guard:
            known.opens -= 1
            if not known.opens and known.backing:
                self._channel.close_backing(known.backing)
                known.backing = 0

    def _register(self, plain: int) -> int:
        try:
            # A program that opens with O_DIRECT gets EIO when the plain file's file system cannot do that.
            os.close(os.open(f"/proc/self/fd/{plain}", os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC))
            return self._channel.open_backing(plain)
        except OSError as error:
            self.refused += 1
            if error.errno == errno.EPERM:  # without CAP_SYS_ADMIN: it would be the same each time
                self.is_on = False
            if error.errno not in self._said:
                self._said.add(error.errno)
                _log.info("the kernel does not read plain files itself: %s", error.strerror)
            return 0
