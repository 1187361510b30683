"""Accepts connections, and turns those away that are too many before they cost anything."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from shardfs.errors import StoreError
from shardfs.formats import wire
from shardfs.server.limits import Gate, network

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024  # connections that the kernel holds until they are accepted
_BATCH: Final = 100  # connections that are accepted in one go
_BREATH_S: Final = 0.2  # how long nothing is accepted when there are no descriptors or no memory
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CLOSING_S: Final = 5.0  # for the end of TLS
_BODY: Final = wire.error_to_bytes("too many connections; try again later")
_REFUSAL: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 2\r\n"
    b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)

Make = Callable[[str], asyncio.Protocol]


def listen(host: str, port: int) -> list[socket.socket]:
    """Sockets that listen on all addresses of a name.

    Raises:
        StoreError: there are none, or one is taken.
    """
    sockets: list[socket.socket] = []
    absent: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, address in dict.fromkeys((info[0], info[4]) for info in found):
            try:
                sockets.append(socket.create_server(address[:2], family=family, backlog=_BACKLOG))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:  # one of the addresses of a name may not be here
                    raise
                absent = error
        if absent is not None and not sockets:
            raise absent
    except (OSError, OverflowError, UnicodeError) as error:
        for each in sockets:
            each.close()
        msg = f"cannot listen on {host} port {port}: {_reason(error)}"
        raise StoreError(msg) from error
    for each in sockets:
        each.setblocking(False)
    return sockets


def _reason(error: Exception) -> object:
    """Without what Python adds: the address is in the message already."""
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error


class Listener:
    """Makes a protocol for each connection that the gate lets in.

    Args:
        sockets: that listen.
        make: a protocol for a client at an address, as `limits.network` says.
        gate: counts connections until they are closed.
        refused: counts those turned away.
        tls: the context for the next connection; None for plain HTTP.
        handshake_s: seconds that a handshake may take; 0 for no limit of our own.
    """

    def __init__(
        self,
        sockets: list[socket.socket],
        make: Make,
        gate: Gate,
        refused: Counter[str],
        tls: Callable[[], ssl.SSLContext] | None = None,
        handshake_s: float = 0,
    ) -> None:
        self._sockets = sockets
        self._make = make
        self._gate = gate
        self._refused = refused
        self._tls = tls
        self._handshake_s = handshake_s
        self._establishing: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        for each in sockets:
            self._begin(each)

    async def close(self) -> None:
        """Listen no more; connections that are open stay so."""
        sockets, self._sockets = self._sockets, []
        for each in sockets:
            self._loop.remove_reader(each)
            each.close()
        for task in self._establishing:
            task.cancel()
        await asyncio.gather(*self._establishing, return_exceptions=True)

    def _begin(self, listening: socket.socket) -> None:
        if listening in self._sockets:  # not closed meanwhile
            self._loop.add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        """Take what has come, so much that others get their turn."""
        for _ in range(_BATCH):
            try:
                client, where = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    _log.warning("cannot accept a connection: %s", error.strerror)
                    self._loop.remove_reader(listening)
                    self._loop.call_later(_BREATH_S, self._begin, listening)
                    return
                continue  # that client is gone again
            self._admit(client, network(where[0]))

    def _admit(self, client: socket.socket, address: str) -> None:
        client.setblocking(False)
        reason = self._gate.enter(address)
        if reason is not None:
            self._refused[reason] += 1
            self._refuse(client)
            return
        task = self._loop.create_task(self._establish(client, address))
        self._establishing.add(task)
        task.add_done_callback(self._establishing.discard)

    async def _establish(self, client: socket.socket, address: str) -> None:
        """From a socket to a protocol that has its transport. The gate counts it until the protocol lost that."""
        protocol = self._make(address)
        context = self._tls() if self._tls else None
        limits = {"ssl_handshake_timeout": self._handshake_s or None, "ssl_shutdown_timeout": _CLOSING_S}
        try:
            await self._loop.connect_accepted_socket(
                lambda: protocol, client, ssl=context, **(limits if context else {})
            )
        except (OSError, asyncio.CancelledError) as error:  # ssl.SSLError is an OSError, and so is TimeoutError
            self._gate.leave(address)
            client.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            _log.debug("no connection with %s: %s", address, error)

    def _refuse(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self._tls is None:
                client.send(_REFUSAL)
                client.shutdown(socket.SHUT_WR)
