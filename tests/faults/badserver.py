"""A server that answers what a test tells it to, byte for byte."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Answer = bytes | Callable[[socket.socket], None]

NEVER = 60.0  # seconds; longer than any test waits


def answer(status: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """An HTTP answer; `length`: a Content-Length other than the true one."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


class BadServer:
    """Gives the answers in turn, the last one for ever; a callable gets the socket and may do anything."""

    def __init__(self, *answers: Answer) -> None:
        self.requests: list[bytes] = []
        self.stop = threading.Event()
        self._answers = list(answers)
        self._given = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/repo"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        self.stop.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            while not self.stop.is_set():
                head = _read_head(client)
                if head is None:
                    return
                self.requests.append(head)
                chosen = self.answer_to(head)
                if callable(chosen):
                    chosen(client)
                    return
                client.sendall(chosen)
                if b"Connection: close" in chosen:
                    return

    def answer_to(self, head: bytes) -> Answer:
        """What to do with a request; the next of the answers."""
        del head
        chosen = self._answers[min(self._given, len(self._answers) - 1)]
        self._given += 1
        return chosen

    def silence(self, _client: socket.socket) -> None:
        """An answer: nothing at all."""
        self.stop.wait(NEVER)

    def then_silence(self, data: bytes) -> Callable[[socket.socket], None]:
        """An answer that begins and does not go on."""

        def send(client: socket.socket) -> None:
            client.sendall(data)
            self.stop.wait(NEVER)

        return send

    def drip(self, start: bytes, piece: bytes, pause_s: float = 0.02) -> Callable[[socket.socket], None]:
        """An answer that goes on for ever, a little at a time."""

        def send(client: socket.socket) -> None:
            client.sendall(start)
            while not self.stop.wait(pause_s):
                client.sendall(piece)

        return send


def _read_head(client: socket.socket) -> bytes | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(65536)
        if not piece:
            return None
        data += piece
        if data.startswith(b"\x16"):  # a TLS handshake
            return None
    head, _, body = data.partition(b"\r\n\r\n")
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            left = int(line.split(b":")[1]) - len(body)
            while left > 0 and left < 1 << 20:  # a large upload is answered in the middle
                piece = client.recv(65536)
                if not piece:
                    return None
                left -= len(piece)
    return head


def endless(start: bytes, piece: bytes) -> Callable[[socket.socket], None]:
    """An answer that goes on for ever as fast as it can."""

    def send(client: socket.socket) -> None:
        client.sendall(start)
        while True:
            client.sendall(piece)

    return send


@contextmanager
def bad_server(*answers: Answer) -> Iterator[BadServer]:
    """A `BadServer` for the block."""
    server = BadServer(*answers)
    try:
        yield server
    finally:
        server.close()
