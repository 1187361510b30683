"""Metrics and health of a mount over HTTP, for those who asked for it. Knows nothing of mounts."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, Final

from shardfs.errors import MountError
from shardfs.exposition import CONTENT_TYPE

_log = logging.getLogger(__name__)

_CLIENT_S: Final = 10.0  # a client that says nothing for so long is left


class Exporter:
    """A server of two pages, `/metrics` and `/healthz`. close() it once.

    Attributes:
        address: where it listens, host and port.
    """

    def __init__(self, address: tuple[str, int], metrics: Callable[[], str], healthy: Callable[[], bool]) -> None:
        """Listen, and serve on threads of its own.

        Args:
            address: host and port; port 0 is any free one.
            metrics: the page for Prometheus.
            healthy: whether all is well; asked by one thread at a time.

        Raises:
            MountError: the address is taken, or not one of this machine.
        """
        try:
            self._server = _Server(address, metrics, healthy)
        except OSError as error:
            msg = f"cannot serve metrics at {address[0]}:{address[1]}: {error.strerror}; choose another address"
            raise MountError(msg) from error
        self.address: tuple[str, int] = self._server.server_address[:2]  # type: ignore[assignment]
        threading.Thread(target=self._server.serve_forever, name="shardfs-metrics", daemon=True).start()

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], metrics: Callable[[], str], healthy: Callable[[], bool]) -> None:
        self.address_family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        self.metrics = metrics
        self._healthy = healthy
        self._looking = threading.Lock()
        super().__init__(address, _Pages)

    def server_bind(self) -> None:
        """Bind, without the question for a name of the host that the base class asks the network."""
        TCPServer.server_bind(self)

    def is_healthy(self) -> bool:
        """Whether all is well."""
        with self._looking:
            return self._healthy()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client went away: nothing that the log of a mount should be filled with."""
        del request
        _log.debug("metrics: %s", client_address, exc_info=True)


class _Pages(BaseHTTPRequestHandler):
    timeout = _CLIENT_S
    server: _Server

    def do_GET(self) -> None:
        """One of the two pages."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._send(HTTPStatus.OK, CONTENT_TYPE, self.server.metrics().encode("utf-8", "backslashreplace"))
        elif path == "/healthz" and self.server.is_healthy():
            self._send(HTTPStatus.OK, "text/plain", b"ok\n")
        elif path == "/healthz":
            self._send(HTTPStatus.SERVICE_UNAVAILABLE, "text/plain", b"the mount does not answer\n")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there are /metrics and /healthz\n")

    do_HEAD = do_GET

    def version_string(self) -> str:
        """Not the versions of Python."""
        return "shardfs"

    def log_message(self, format: str, *args: Any) -> None:
        """Every page is fetched again and again: only for those who look for it."""
        _log.debug(format, *args)

    def _send(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
