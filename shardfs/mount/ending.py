"""The end of a mount in bounded time: by a signal, or after somebody unmounted it."""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs import mountinfo
from shardfs.errors import MountError
from shardfs.mount import umount

_log = logging.getLogger(__name__)

GRACE_S: Final = 0.5  # until blocked requests (and after a signal open files) no longer keep the daemon alive
_JOIN_S: Final = 2.0  # for threads that have nothing left to wait for
SIGNALS: Final = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
_TABLE: Final = "/proc/self/mountinfo"
_DEVICE: Final = "/dev/fuse"


class Ending:
    """Two threads that wait, without polling: one for a signal, one for the mount to leave the kernel's table.

    SIGNALS must be blocked in every thread of the process: a signal that a thread of libfuse took would end nothing.
    """

    def __init__(self, mountpoint: Path, clear: Callable[[], None]) -> None:
        """Start waiting.

        Args:
            mountpoint: the mount.
            clear: closes what a process should not leave open; called before the process is ended by force.
        """
        self._mountpoint = mountpoint
        self._clear = clear
        self._ended = threading.Event()
        self._wake = os.eventfd(0)
        self._signals = threading.Thread(target=self._await_signal, name="shardfs-signals", daemon=True)
        self._signals.start()
        self._table: threading.Thread | None = None

    def mounted(self, device: str) -> None:
        """The mount is in the table, as this device."""
        self._table = threading.Thread(target=self._await_unmount, args=(device,), name="shardfs-table", daemon=True)
        self._table.start()

    def serving_ended(self) -> None:
        """The engine has returned: nothing is left to end. Waits for the threads."""
        self._ended.set()
        os.eventfd_write(self._wake, 1)
        if self._signals.ident is not None and self._signals.is_alive():
            signal.pthread_kill(self._signals.ident, signal.SIGTERM)
        for thread in (self._signals, self._table):
            if thread is not None and thread is not threading.current_thread():
                thread.join(_JOIN_S)
        os.close(self._wake)

    def _await_signal(self) -> None:
        number = signal.sigwait(SIGNALS)
        if self._ended.is_set():
            return
        _log.info("ending by %s", signal.Signals(number).name)
        try:
            umount.detach(self._mountpoint)
        except MountError as error:
            _log.warning("%s", error)
        self._end_by_force()

    def _await_unmount(self, device: str) -> None:
        """When the mount is gone but a request is blocked, libfuse waits for that request for ever."""
        with open(_TABLE, "rb") as table:  # noqa: PTH123 - its descriptor is polled
            changes = select.poll()
            changes.register(table, select.POLLPRI | select.POLLERR)
            changes.register(self._wake, select.POLLIN)
            while any(row.device == device for row in mountinfo.rows()):
                changes.poll()
                if self._ended.is_set():
                    return
        _log.info("unmounted")
        # After a lazy unmount the connection lives until the last file is closed.
        connection = select.poll()
        connection.register(self._wake, select.POLLIN)
        for fd in _fuse_descriptors():
            connection.register(fd, 0)  # POLLERR: the kernel has left
        connection.poll()
        self._end_by_force()

    def _end_by_force(self) -> None:
        if self._ended.wait(GRACE_S):
            return
        # Ending the process closes the connection: programs get an error instead of waiting.
        _log.warning("requests are blocked or files are open, they fail now")
        self._clear()
        logging.shutdown()
        os._exit(0)


def _fuse_descriptors() -> list[int]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(link.readlink()) == _DEVICE:
                found.append(int(link.name))
    return found
