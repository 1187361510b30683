"""A socket with a limit on how long each phase of an exchange may take, and on how fast its bytes may go."""

from __future__ import annotations

import io
import select
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shardfs.remotes import deadline
from shardfs.remotes.throttle import Throttle

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_BURST: Final = 256 << 10  # bytes of a long body that are waited for at once: a tenth of the wake-ups
_SEND_SIZE: Final = 256 << 10  # bytes per send, so that a slow receiver is noticed


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long a remote may keep the client waiting, in seconds.

    Attributes:
        connect_s: for name look-up, TCP and TLS together.
        answer_s: from the end of the request to the end of the answer's headers.
        idle_s: between two pieces of a body, in either direction.
        min_bytes_per_s: least average speed of a body once `idle_s` has passed since its begin.
    """

    connect_s: float = 10.0
    answer_s: float = 30.0
    idle_s: float = 15.0
    min_bytes_per_s: int = 8192


class TimedSocket:
    """The part of a socket that http.client uses, with a limit on each phase instead of each call."""

    def __init__(self, raw: socket.socket, timeouts: Timeouts, throttle: Throttle | None = None) -> None:
        self._raw = raw
        self._timeouts = timeouts
        self._throttle = throttle
        self._held_s = 0.0  # waited of the current body because of the throttle, which is no fault of the server
        self._readers = 0
        self._closed = False
        self._head_until: float | None = None
        self._body_from = 0.0
        self._body_bytes = 0
        self._in_bursts = False
        self._least = 1  # bytes that have to be there before `receive` goes on

    def expect_head(self) -> None:
        """An answer is due now."""
        self._wait_for(1)
        wait = min(self._timeouts.answer_s, deadline.remaining())
        self._head_until = time.monotonic() + wait

    def expect_body(self, *, is_sized: bool) -> None:
        """The headers are complete; `is_sized`: they say how long the body is, and no more than that is asked for."""
        self._head_until = None
        self._in_bursts = is_sized and not isinstance(self._raw, ssl.SSLSocket)
        self._body_from, self._body_bytes, self._held_s = time.monotonic(), 0, 0.0

    def sendall(self, data: ReadableBuffer) -> None:
        """Send everything; each piece within the idle limit."""
        view = memoryview(data).cast("B")
        started, self._held_s = time.monotonic(), 0.0
        size = _SEND_SIZE if self._throttle is None else self._throttle.piece
        for start in range(0, len(view), size):
            piece = view[start : start + size]
            if self._throttle is not None:
                self._held_s += self._throttle.sending.take(len(piece))
            self._raw.settimeout(self._timeouts.idle_s)
            self._raw.sendall(piece)
            self._check_speed(started, start)

    def receive(self, buffer: WriteableBuffer) -> int:
        """One piece of the answer; 0 at its end."""
        if self._throttle is None:
            return self._receive(buffer)
        count = self._receive(memoryview(buffer).cast("B")[: self._throttle.piece])
        self._held_s += self._throttle.receiving.take(count)
        return count

    def _receive(self, buffer: WriteableBuffer) -> int:
        now = time.monotonic()
        if self._head_until is not None:
            left = self._head_until - now
            if left <= 0:
                raise TimeoutError("no answer in time")
            self._raw.settimeout(left)
            return self._raw.recv_into(buffer)
        self._check_speed(self._body_from, self._body_bytes)
        self._raw.settimeout(self._timeouts.idle_s)
        size = memoryview(buffer).nbytes
        self._wait_for(_BURST if self._in_bursts and size >= _BURST else 1)
        try:
            count = self._raw.recv_into(buffer)
        except TimeoutError:
            if self._least == 1:
                raise
            self._in_bursts = False  # too slow for that
            self._wait_for(1)
            self._raw.settimeout(0.001)
            count = self._raw.recv_into(buffer)
        self._body_bytes += count
        return count

    def _wait_for(self, least: int) -> None:
        if least != self._least:
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, least)
            self._least = least

    def _check_speed(self, started: float, count: int) -> None:
        elapsed = time.monotonic() - started - self._held_s
        if elapsed > self._timeouts.idle_s and count < elapsed * self._timeouts.min_bytes_per_s:
            msg = f"slower than {self._timeouts.min_bytes_per_s} bytes per second"
            raise TimeoutError(msg)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """A reader of the answer; keeps the socket open until it is closed, as http.client expects."""
        self._readers += 1
        return io.BufferedReader(_SocketReader(self))

    def reader_closed(self) -> None:
        """A reader is done."""
        self._readers -= 1
        if self._closed and self._readers == 0:
            self._raw.close()

    def close(self) -> None:
        """Close once no reader is left."""
        self._closed = True
        if self._readers <= 0:
            self._raw.close()

    def abort(self) -> None:
        """Have whoever waits for the other side wait no longer; safe to call from another thread."""
        with suppress(OSError):
            socket.socket.shutdown(self._raw, socket.SHUT_RDWR)  # also where it is wrapped: that object stays as it is

    def is_stale(self) -> bool:
        """Whether the server closed an idle connection, or sent what nobody asked for."""
        self._wait_for(1)
        poll = select.poll()
        poll.register(self._raw, select.POLLIN)
        return bool(poll.poll(0))


class _SocketReader(io.RawIOBase):
    def __init__(self, owner: TimedSocket) -> None:
        super().__init__()
        self._owner = owner

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        return self._owner.receive(buffer)

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._owner.reader_closed()
