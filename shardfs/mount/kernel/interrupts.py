"""Requests that workers have, and those among them that nobody waits for any more.

A thread that was killed still waits for its request to be answered. The kernel tells that a signal came, not which; and
programs that have handlers for signals do not expect EINTR from open or stat. So only requests of killed threads are
given up, and only those that change nothing.
"""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs.mount.kernel.messages import Opcode
from shardfs.mount.kernel.request import Request

_HARMLESS: Final = frozenset(
    {
        Opcode.LOOKUP,
        Opcode.GETATTR,
        Opcode.READLINK,
        Opcode.OPEN,
        Opcode.READ,
        Opcode.STATFS,
        Opcode.GETXATTR,
        Opcode.LISTXATTR,
        Opcode.OPENDIR,
        Opcode.READDIR,
        Opcode.READDIRPLUS,
    }
)
_KILLED: Final = 1 << (signal.SIGKILL - 1)  # the kernel makes SIGKILL of every signal that ends a process


class Pending:
    """Requests that were handed to workers. Safe to share between threads."""

    def __init__(self) -> None:
        self._requests: dict[int, Request] = {}
        self._interrupted: dict[int, Request] = {}

    @property
    def has_interrupted(self) -> bool:
        """Whether `abandoned` may find something later."""
        return bool(self._interrupted)

    def add(self, request: Request) -> None:
        """A worker gets it."""
        self._requests[request.unique] = request

    def take(self, request: Request) -> bool:
        """Whether the caller is the one to answer."""
        self._interrupted.pop(request.unique, None)
        return self._requests.pop(request.unique, None) is not None

    def interrupt(self, unique: int) -> None:
        """A signal came for the thread that waits for a request."""
        request = self._requests.get(unique)
        if request is not None and request.opcode in _HARMLESS:
            self._interrupted[unique] = request

    def abandoned(self) -> list[Request]:
        """Requests of killed threads; the caller has to answer them."""
        killed = [request for request in list(self._interrupted.values()) if _is_killed(request.pid)]
        return [request for request in killed if self.take(request)]


def _is_killed(thread: int) -> bool:
    with suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{thread}/status").read_text().splitlines():
            if line.startswith(("SigPnd:", "ShdPnd:")) and int(line.split()[1], 16) & _KILLED:
                return True
    return False
