"""A link to a server that counts bytes, dies after so many of them, or stops carrying any."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

_PIECE = 16 << 10


class Relay:
    """Forwards connections to a server.

    Attributes:
        url: where clients connect.
        sent: bytes that came from clients so far.
        dies_after: bytes from the client after which a connection is reset; None: none is.
        stops_after: bytes from clients, of all connections, after which nothing is carried any more; None: never.
        stopped: set when that happened.
        pace_s: seconds that a piece of 16 KiB takes; else buffers of the kernel hold megabytes that came nowhere.
    """

    def __init__(self, upstream: str) -> None:
        self.sent = 0
        self.connections = 0
        self.dies_after: int | None = None
        self.stops_after: int | None = None
        self.stopped = threading.Event()
        self.pace_s = 0.0
        self.aim(upstream)
        self._guard = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def aim(self, upstream: str) -> None:
        """Forward to another server from now on."""
        parts = urlsplit(upstream)
        self._upstream = parts.hostname or "", parts.port or 80

    def close(self) -> None:
        """Accept no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._upstream, 10)
            except ConnectionError:
                client.close()
                continue
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            answers = threading.Thread(target=self._carry, args=(server, client, lambda _: True), daemon=True)
            answers.start()
            self._carry(client, server, self._count(client, server))
            answers.join()

    def _count(self, client: socket.socket, server: socket.socket) -> Callable[[int], bool]:
        carried = 0

        def count(size: int) -> bool:
            nonlocal carried
            carried += size
            with self._guard:
                self.sent += size
                if self.stops_after is not None and self.sent > self.stops_after:
                    self.stopped.set()
            if self.dies_after is not None and carried > self.dies_after:
                for end in (client, server):
                    with suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)
                return False
            return not self.stopped.is_set()

        return count

    def _carry(self, source: socket.socket, target: socket.socket, goes_on: Callable[[int], bool]) -> None:
        with suppress(OSError):
            while piece := source.recv(_PIECE):
                target.sendall(piece)
                time.sleep(self.pace_s)
                if not goes_on(len(piece)):
                    break
            while self.stopped.is_set() and source.recv(_PIECE):
                pass  # lost on the way
        with suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def relaying(upstream: str) -> Iterator[Relay]:
    """A relay to a server for the block."""
    relay = Relay(upstream)
    try:
        yield relay
    finally:
        relay.close()
