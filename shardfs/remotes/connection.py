"""HTTP/1.1 connections on which no wait is endless, and a pool of them."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
import time
from collections import deque
from typing import Any, Final

from shardfs.remotes import deadline, dialing
from shardfs.remotes.redirects import ForbiddenError
from shardfs.remotes.throttle import Throttle
from shardfs.remotes.timedsocket import TimedSocket, Timeouts

_MAX_IDLE: Final = 16
_IDLE_S: Final = 30.0  # servers close idle connections, the usual ones after 60 s or more
_WARM_S: Final = 0.15  # after 0.2 s unused Linux forgets how fast a connection may send: 1 MB takes 6 round trips then


class Connection(http.client.HTTPConnection):
    """One connection to a server. Not thread-safe; the pool lends it to one thread at a time.

    Attributes:
        reached: whether a connection was ever made.
        used: whether it has carried a whole exchange.
        idle_since: monotonic time of the end of the last one.
        is_public: whether the other end is a machine of the open internet.
    """

    def __init__(
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        timeouts: Timeouts,
        throttle: Throttle | None = None,
        *,
        only_public: bool = False,
    ) -> None:
        super().__init__(host, port)
        self._throttle = throttle
        self._tls = tls
        self._timeouts = timeouts
        self._only_public = only_public
        self.is_public = False
        self._timed: TimedSocket | None = None
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
        raw = dialing.connect(self.host, self.port, until, self._prepare)
        try:
            self._judge(raw.getpeername()[0])
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                raw.settimeout(dialing.left(until))
                raw = self._tls.wrap_socket(raw, server_hostname=self.host)
        except BaseException:
            raw.close()
            raise
        self.reached = True
        self._timed = TimedSocket(raw, self._timeouts, self._throttle)
        self.sock: Any = self._timed

    def _prepare(self, raw: socket.socket) -> None:
        """Keep what the system buffers near what the throttle lets pass, or the link would see bursts of megabytes."""
        if self._throttle is not None:
            size = 4 * self._throttle.piece
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)

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

    def abort(self) -> None:
        """Have whoever waits for an answer wait no longer; safe to call from another thread."""
        timed = self._timed
        if timed is not None:
            timed.abort()

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
        self,
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        timeouts: Timeouts,
        throttle: Throttle | None = None,
        *,
        only_public: bool = False,
    ) -> None:
        """Args: only_public: no machine of a private network may be behind the host."""
        self._throttle = throttle
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
        return Connection(
            self._host, self._port, self._tls, self._timeouts, self._throttle, only_public=self._only_public
        )

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
