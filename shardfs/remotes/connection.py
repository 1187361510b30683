"""HTTP/1.1 connections on which no wait is endless, and a pool of them."""

from __future__ import annotations

import http.client
import io
import ipaddress
import queue
import select
import socket
import ssl
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from shardfs.remotes import deadline
from shardfs.remotes.redirects import ForbiddenError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

_MAX_IDLE: Final = 16
_IDLE_S: Final = 30.0  # servers close idle connections, the usual ones after 60 s or more
_WARM_S: Final = (
    0.15  # after 0.2 s without use Linux forgets how fast a connection may send: 1 MB then takes 6 round trips
)
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


class _TimedSocket:
    """The part of a socket that http.client uses, with a limit on each phase instead of each call."""

    def __init__(self, raw: socket.socket, timeouts: Timeouts) -> None:
        self._raw = raw
        self._timeouts = timeouts
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
        self._body_from, self._body_bytes = time.monotonic(), 0

    def sendall(self, data: ReadableBuffer) -> None:
        """Send everything; each piece within the idle limit."""
        view = memoryview(data).cast("B")
        started = time.monotonic()
        for start in range(0, len(view), _SEND_SIZE):
            self._raw.settimeout(self._timeouts.idle_s)
            self._raw.sendall(view[start : start + _SEND_SIZE])
            self._check_speed(started, start)

    def receive(self, buffer: WriteableBuffer) -> int:
        """One piece of the answer; 0 at its end."""
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
        elapsed = time.monotonic() - started
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

    def is_stale(self) -> bool:
        """Whether the server closed an idle connection, or sent what nobody asked for."""
        self._wait_for(1)
        poll = select.poll()
        poll.register(self._raw, select.POLLIN)
        return bool(poll.poll(0))


class _SocketReader(io.RawIOBase):
    def __init__(self, owner: _TimedSocket) -> None:
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


class Connection(http.client.HTTPConnection):
    """One connection to a server. Not thread-safe; the pool lends it to one thread at a time.

    Attributes:
        reached: whether a connection was ever made.
        used: whether it has carried a whole exchange.
        idle_since: monotonic time of the end of the last one.
        is_public: whether the other end is a machine of the open internet.
    """

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, timeouts: Timeouts, *, only_public: bool = False
    ) -> None:
        super().__init__(host, port)
        self._tls = tls
        self._timeouts = timeouts
        self._only_public = only_public
        self.is_public = False
        self._timed: _TimedSocket | None = None
        self.reached = False
        self.used = False
        self.idle_since = 0.0
        if tls is not None:
            self.default_port = 443

    def connect(self) -> None:
        """Connect within the limit.

        Raises:
            OSError: refused, unreachable, timed out, unknown host, certificate refused.
            ForbiddenError: a redirect led inside.
        """
        until = time.monotonic() + min(self._timeouts.connect_s, deadline.remaining())
        raw = _connect(self.host, self.port, until)
        try:
            self._judge(raw.getpeername()[0])
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                raw.settimeout(_left(until))
                raw = self._tls.wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise
        self.reached = True
        self._timed = _TimedSocket(raw, self._timeouts)
        self.sock: Any = self._timed

    def _judge(self, peer: str) -> None:
        self.is_public = ipaddress.ip_address(peer.partition("%")[0]).is_global
        if self._only_public and not self.is_public:
            msg = f"it redirects to {self.host}, which is a machine inside"
            raise ForbiddenError(msg)

    def answer(self) -> http.client.HTTPResponse:
        """The answer to the request just sent, its body not yet read.

        Raises:
            OSError, http.client.HTTPException: none came in time, or none that is HTTP.
        """
        timed = self._timed
        if timed is None:
            raise http.client.NotConnected
        timed.expect_head()
        response = self.getresponse()
        timed.expect_body(is_sized=response.length is not None)
        return response

    def is_reusable(self) -> bool:
        """Whether the connection can carry another request."""
        if self.sock is None or self._timed is None:
            return False
        return time.monotonic() - self.idle_since < _IDLE_S and not self._timed.is_stale()


class Pool:
    """Idle connections to one server, shared by threads.

    Of those that were used a moment ago the one that waits longest goes out first: all of them stay fast. When there
    are none, the last one used.
    """

    def __init__(
        self, host: str, port: int, tls: ssl.SSLContext | None, timeouts: Timeouts, *, only_public: bool = False
    ) -> None:
        """Args: only_public: no machine of a private network may be behind the host."""
        self._host = host
        self._port = port
        self._tls = tls
        self._timeouts = timeouts
        self._only_public = only_public
        self._idle: deque[Connection] = deque()
        self._lock = threading.Lock()

    def take(self, *, fresh: bool = False) -> Connection:
        """A connection for the calling thread; connected already, or on its first request."""
        while not fresh:
            with self._lock:
                if not self._idle:
                    break
                connection = self._pick()
            if connection.is_reusable():
                return connection
            connection.close()
        return Connection(self._host, self._port, self._tls, self._timeouts, only_public=self._only_public)

    def give(self, connection: Connection) -> None:
        """Take back a connection whose answer was read to the end."""
        connection.used = True
        connection.idle_since = time.monotonic()
        with self._lock:
            self._idle.append(connection)
            surplus = self._idle.popleft() if len(self._idle) > _MAX_IDLE else None
        if surplus is not None:
            surplus.close()

    def _pick(self) -> Connection:
        cold = time.monotonic() - _WARM_S
        found = next((connection for connection in self._idle if connection.idle_since > cold), self._idle[-1])
        self._idle.remove(found)
        return found

    def close(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, deque()
        for connection in idle:
            connection.close()


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError("no connection in time")
    return left


def _connect(host: str, port: int, until: float) -> socket.socket:
    """A socket connected to the first address of `host` that answers."""
    failure: OSError = TimeoutError("no connection in time")
    for family, kind, protocol, _, address in _resolve(host, port, until):
        raw = socket.socket(family, kind, protocol)
        try:
            raw.settimeout(_left(until))
            raw.connect(address)
            return raw
        except OSError as error:
            raw.close()
            failure = error
    raise failure


def _resolve(host: str, port: int, until: float) -> list[Any]:
    """Addresses of a host. The resolver knows no time limit, so names are looked up on a thread that may be left."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        results: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                results.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            except (OSError, UnicodeError) as error:
                results.put(error if isinstance(error, OSError) else OSError(str(error)))

        threading.Thread(target=look_up, name="shardfs-resolve", daemon=True).start()
        try:
            result = results.get(timeout=_left(until))
        except queue.Empty:
            msg = f"no address for {host} in time"
            raise TimeoutError(msg) from None
        if isinstance(result, OSError):
            raise result from None
        return result
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
