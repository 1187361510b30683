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
        self._accepting = [asyncio.create_task(self._accept(each)) for each in sockets]

    async def close(self) -> None:
        """Listen no more; connections that are open stay so."""
        for task in (*self._accepting, *self._establishing):
            task.cancel()
        await asyncio.gather(*self._accepting, *self._establishing, return_exceptions=True)
        for each in self._sockets:
            each.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                client, where = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    _log.warning("cannot accept a connection: %s", error.strerror)
                    await asyncio.sleep(_BREATH_S)
                continue
            address = network(where[0])
            reason = self._gate.enter(address)
            if reason is None:
                task = asyncio.create_task(self._establish(client, address))
                self._establishing.add(task)
                task.add_done_callback(self._establishing.discard)
            else:
                self._refused[reason] += 1
                self._refuse(client)

    async def _establish(self, client: socket.socket, address: str) -> None:
        """From a socket to a protocol that has its transport. The gate counts it until the protocol lost that."""
        protocol = self._make(address)
        context = self._tls() if self._tls else None
        limits = {"ssl_handshake_timeout": self._handshake_s or None, "ssl_shutdown_timeout": _CLOSING_S}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
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
            client.setblocking(False)
            if self._tls is None:
                client.send(_REFUSAL)
                client.shutdown(socket.SHUT_WR)
