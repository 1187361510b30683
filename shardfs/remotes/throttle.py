"""A limit on bytes per second, shared by all threads of the process: one for what is sent, one for what is received.

Connections of ours keep it piece by piece, so that a link sees an even stream; remotes whose bytes go through a library
keep it request by request, in uploads part by part (`ThrottledRemote`).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Final

from shardfs.formats.ids import PackId
from shardfs.remotes import deadline, meter
from shardfs.remotes.base import Remote
from shardfs.remotes.forwarding import ForwardingRemote

_PIECE_S: Final = 0.05  # a piece takes this long, so that others on the link notice no bursts
_LEAST_PIECE: Final = 1 << 10
_MOST_PIECE: Final = 256 << 10
_SAVED_S: Final = 0.1  # of unused time that may be made up for
_LEAST_SHARE: Final = 32 << 10  # bytes per second for each request: 4 times what servers and this client insist on


class Bucket:
    """Lets `rate` bytes per second pass. Safe to share between threads.

    Args:
        rate: bytes per second, above 0.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0  # monotonic time when all that passed is paid for

    def take(self, count: int) -> float:
        """Let `count` bytes pass and wait until they are paid for; returns the seconds that it waited."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now - _SAVED_S) + count / self._rate
            wait_s = self._free_at - now
        if wait_s <= 0:
            return 0.0
        time.sleep(wait_s)
        return wait_s


class Throttle:
    """The limit of a process.

    Attributes:
        rate: bytes per second, in each direction.
        piece: most bytes to send or receive at a time.
        requests: how many requests at once still have a sound speed each.
        sending, receiving: what to take from.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.piece = min(_MOST_PIECE, max(_LEAST_PIECE, int(rate * _PIECE_S)))
        self.requests = max(1, rate // _LEAST_SHARE)
        self.sending = Bucket(rate)
        self.receiving = Bucket(rate)


_throttles: dict[int, Throttle] = {}
_guard = threading.Lock()


def shared(rate: int) -> Throttle | None:
    """The one limit of this process of so many bytes per second; None for 0, no limit."""
    if rate <= 0:
        return None
    with _guard:
        return _throttles.setdefault(rate, Throttle(rate))


def _after_fork() -> None:
    global _guard
    _guard = threading.Lock()
    _throttles.clear()


os.register_at_fork(after_in_child=_after_fork)


class ThrottledRemote(ForwardingRemote):
    """Wraps a remote whose bytes do not go through connections of ours.

    Args:
        inner: the remote to ask.
        throttle: the limit of this process.
    """

    def __init__(self, inner: Remote, throttle: Throttle) -> None:
        super().__init__(inner)
        self._throttle = throttle

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        with deadline.extended(self._throttle.receiving.take(length)):
            return super().read_pack(pack_id, offset, length)

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`."""
        last: int | None = None

        def pay(position: int) -> None:
            nonlocal last
            if position > (last or 0):
                self._throttle.sending.take(position - (last or 0))
            last = position  # less than before when the upload begins anew

        with meter.watch(pay):
            super().put_pack(path, pack_id)
        if last is None:  # a remote that tells nothing
            self._throttle.sending.take(path.stat().st_size)
