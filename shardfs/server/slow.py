"""Connections that are watched: a client that is too slow is cut off, whatever it is slow with.

What the kernel counts for each socket is the only witness that sees every way in which bytes go: `sendfile`, TLS, and
what aiohttp's parser has not looked at yet.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import socket
import struct
import termios
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from aiohttp import web

from shardfs.server.limits import Gate, Limits

_log = logging.getLogger(__name__)

KEEPALIVE_S: Final = 75.0  # how long a connection may stay open between two requests
_TICK_S: Final = 1.0
_TCP_INFO: Final = struct.Struct("=120xQQ")  # tcpi_bytes_acked, tcpi_bytes_received; linux/tcp.h, since Linux 4.2
_SO_MAX_PACING_RATE: Final = 47  # asm-generic/socket.h


class _Seen(NamedTuple):
    """What the kernel counted for a socket.

    Attributes:
        sent: bytes that the other side has confirmed.
        received: bytes that came, read by us or not.
        waiting: bytes that the kernel could not get rid of yet.
    """

    sent: int = 0
    received: int = 0
    waiting: int = 0


class Connection(web.RequestHandler):
    """One connection.

    Args:
        server: aiohttp's part that all connections share.
        address: where the client is, as `limits.network` says.
        watch: looks at the connection now and then.
        gate: let it in, and is told when it is over.
        options: for `web.RequestHandler`.
    """

    def __init__(self, server: web.Server, address: str, watch: Watch, gate: Gate, **options: Any) -> None:
        super().__init__(server, **options)
        self.address = address
        self.request: web.Request | None = None  # the one that is being answered
        self.head_since: float | None = None  # when the head that is not complete yet began
        self.stream: asyncio.Transport | None = None  # until nothing is left of it: aiohttp forgets it earlier
        self.pace = Pace()
        self._watch = watch
        self._gate = gate

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is done."""
        assert isinstance(transport, asyncio.Transport)
        self.stream = transport
        self.head_since = self._loop.time()
        self._watch.add(self)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came; aiohttp says it with none of them when it goes on with those that it has."""
        if data and self.request is None and self.head_since is None:
            self.head_since = self._loop.time()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        """The socket is about to be closed."""
        self._watch.remove(self)
        self._gate.leave(self.address)
        self.stream = None
        super().connection_lost(exc)

    def begin(self, request: web.Request) -> None:
        """The head of a request is complete."""
        self.request, self.head_since = request, None

    def end(self) -> None:
        """Its answer is sent."""
        self.request = None

    @property
    def handle(self) -> socket.socket | None:
        """The socket, while there is one."""
        found: socket.socket | None = self.stream.get_extra_info("socket") if self.stream else None
        return found if found is not None and found.fileno() >= 0 else None

    def cut(self) -> None:
        """End it at once, and let go of what was not sent; whoever waits for it gets a ConnectionError.

        Not by the transport's `abort`: a `sendfile` of asyncio would wait for ever, and keep the descriptor.
        """
        handle = self.handle
        if handle is not None:
            with suppress(OSError):  # it ended by itself
                handle.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handle.shutdown(socket.SHUT_RDWR)

    def seen(self) -> _Seen:
        """What the kernel has counted by now."""
        handle = self.handle
        if handle is None:
            return self.pace.last
        sent, received = _TCP_INFO.unpack_from(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256))
        waiting = struct.unpack("i", fcntl.ioctl(handle.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return _Seen(sent, received, waiting)


class Pace:
    """How fast bytes went over a connection since the client was waited for."""

    def __init__(self) -> None:
        self.last = _Seen()
        self.limit = 0  # bytes per second that the kernel was told to send at most
        self._sending: tuple[float, int] | None = None  # since when the client is waited for, and the count then
        self._receiving: tuple[float, int] | None = None

    def too_slow(self, connection: Connection, now: float, limits: Limits) -> str | None:
        """What the client is too slow with, if anything."""
        sent, received, waiting = self.last
        self._sending, slow = _measured(self._sending, bool(waiting), sent, now, limits)
        if slow:
            return "answer"
        self._receiving, slow = _measured(self._receiving, _lacks_body(connection), received, now, limits)
        if slow:
            return "body"
        began = connection.head_since
        return "head" if began is not None and limits.head_s and now - began > limits.head_s else None


def _measured(
    since: tuple[float, int] | None, waited_for: bool, count: int, now: float, limits: Limits
) -> tuple[tuple[float, int] | None, bool]:
    """Where the present stretch of waiting began, and whether it was slower than allowed."""
    if not waited_for or not limits.min_speed or not limits.slow_s:
        return None, False
    if since is None:
        return (now, count), False
    seconds = now - since[0]
    if seconds < limits.slow_s:
        return since, False
    return (now, count), count - since[1] < limits.min_speed * seconds


def _lacks_body(connection: Connection) -> bool:
    """Whether it is the client that we wait for: not so while we do not read what it sends."""
    request, stream = connection.request, connection.stream
    return request is not None and stream is not None and not request.content.is_eof() and stream.is_reading()


class Watch:
    """Looks at all connections once a second.

    Args:
        limits: what is too slow, and how fast one address may read.
        gate: knows how many connections an address has.
        cut_off: counts by reason.

    Attributes:
        sent, received: bytes that went over all connections up to the last look, as the kernel counts them.
    """

    def __init__(self, limits: Limits, gate: Gate, cut_off: Counter[str]) -> None:
        self.sent = 0
        self.received = 0
        self._limits = limits
        self._gate = gate
        self._cut_off = cut_off
        self._connections: set[Connection] = set()

    def add(self, connection: Connection) -> None:
        """A connection is open."""
        self._connections.add(connection)
        self._limit_speed(connection)

    def remove(self, connection: Connection) -> None:
        """Its socket is about to be closed."""
        self._count(connection)
        self._connections.discard(connection)

    def cut_all(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.cut()

    def count(self) -> None:
        """Bring the counts of bytes up to date."""
        for connection in self._connections:
            self._count(connection)

    async def run(self, each_time: Callable[[], None]) -> None:
        """Look, until cancelled.

        Args:
            each_time: is called with every look.
        """
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(_TICK_S, *(s / 4 for s in (self._limits.head_s, self._limits.slow_s) if s)))
            for connection in list(self._connections):
                try:
                    self._look(connection, loop.time())
                except OSError:  # the socket went away meanwhile
                    _log.debug("cannot look at a connection of %s", connection.address, exc_info=True)
            each_time()

    def _look(self, connection: Connection, now: float) -> None:
        self._count(connection)
        self._limit_speed(connection)
        slow = connection.pace.too_slow(connection, now, self._limits)
        if slow is None:
            return
        self._cut_off[slow] += 1
        if slow == "body" and connection.request is not None:
            connection.request.content.set_exception(web.HTTPRequestTimeout(text="the body came too slowly"))
        else:
            connection.cut()

    def _count(self, connection: Connection) -> None:
        seen, last = connection.seen(), connection.pace.last
        self.sent += seen.sent - last.sent
        self.received += seen.received - last.received
        connection.pace.last = seen

    def _limit_speed(self, connection: Connection) -> None:
        """Give each connection of an address the same part of what the address may have; the kernel keeps to it."""
        handle = connection.handle
        if not self._limits.speed or handle is None:
            return
        # Below twice what a client must take, it would be cut off for being as slow as it was told to be.
        part = max(self._limits.speed // max(1, self._gate.of(connection.address)), 2 * self._limits.min_speed)
        if part != connection.pace.limit:
            handle.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("=Q", part))
            connection.pace.limit = part


@web.middleware
async def mark_request(request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
    """Let the connection of a request know that its head is complete, and when it is answered."""
    connection = request.protocol
    if not isinstance(connection, Connection):
        return await handler(request)  # type: ignore[no-any-return]
    connection.begin(request)
    try:
        return await handler(request)  # type: ignore[no-any-return]
    finally:
        connection.end()
