"""One request and its answer as a proxy sees them: HTTP/1.1 on plain sockets, so that any part can be broken."""

from __future__ import annotations

import http.client
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

PIECE = 64 << 10  # bytes of an upload that are passed on at once
UPSTREAM_S = 60.0  # for the server behind the proxy, which is sound
MAX_HEAD = 64 << 10  # bytes
_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length"})


class ClosedError(Exception):
    """The client hung up, or has been told to."""


@dataclass(frozen=True)
class Request:
    """A request without its body.

    Attributes:
        length: bytes of the body; 0 without one.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    length: int

    def header(self, name: str) -> str:
        """The value of a header, "" without one."""
        return next((value for key, value in self.headers if key.lower() == name), "")


@dataclass(frozen=True)
class Answer:
    """An answer whose body is complete.

    Attributes:
        length: what Content-Length says; the length of the body unless it is the answer to HEAD, or a lie.
    """

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    length: int = 0

    @classmethod
    def of(cls, status: int, body: bytes = b"", **headers: str) -> Answer:
        """An answer of the proxy itself."""
        named = tuple((name.replace("_", "-"), value) for name, value in headers.items())
        return cls(status, http.client.responses.get(status, "Unknown"), named, body, len(body))

    def changed(self, body: bytes) -> Answer:
        """The same with another body."""
        return replace(self, body=body, length=len(body))

    def without(self, name: str) -> Answer:
        """The same without a header."""
        return replace(self, headers=tuple(pair for pair in self.headers if pair[0].lower() != name))

    def head(self) -> bytes:
        """Status line and headers."""
        lines = [f"HTTP/1.1 {self.status} {self.reason}", *(f"{name}: {value}" for name, value in self.headers)]
        return "\r\n".join([*lines, f"Content-Length: {self.length}", "", ""]).encode("latin-1")


class Wire:
    """The client's end of a connection."""

    def __init__(self, raw: socket.socket) -> None:
        self._raw = raw
        self._buffer = b""
        self.open = True

    def request(self) -> Request | None:
        """The next request; None when the client hung up instead."""
        while b"\r\n\r\n" not in self._buffer:
            piece = self._receive(PIECE)
            if not piece or len(self._buffer) > MAX_HEAD:
                return None
            self._buffer += piece
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = tuple((name, value.strip()) for name, _, value in (line.partition(":") for line in lines))
        method, target, _ = first.split(" ")
        request = Request(method, target, pairs, 0)
        return replace(request, length=int(request.header("content-length") or 0))

    def pieces(self, length: int) -> Iterator[bytes]:
        """The next `length` bytes as they come; ends early when the client hangs up."""
        while length:
            piece, self._buffer = self._buffer[:length], self._buffer[length:]
            piece = piece or self._receive(min(PIECE, length))
            if not piece:
                self.open = False
                return
            length -= len(piece)
            yield piece

    def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            ClosedError: the client hung up.
        """
        try:
            self._raw.sendall(data)
        except OSError as error:
            self.open = False
            raise ClosedError from error

    def reset(self) -> None:
        """Hang up as a machine that crashed: what is on its way is lost."""
        with suppress(OSError):
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Hang up in good order; safe while another thread waits for the client."""
        self.open = False
        with suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)
        self._raw.close()

    def _receive(self, size: int) -> bytes:
        try:
            return self._raw.recv(size)
        except OSError:
            return b""


@dataclass
class Exchange:
    """One request on its way through the proxy.

    Attributes:
        request: what the client asks.
        wire: the client.
        chance: decides where something breaks; the same for the same seed and request.
        upstream: host and port of the server.
        ended: set when nobody waits for this any more.
        note: told the bytes of the upload as they come.
        before: an answer that another request of the same method got.
    """

    request: Request
    wire: Wire
    chance: random.Random
    upstream: tuple[str, int]
    ended: threading.Event
    note: Callable[[int], None] = field(default=lambda _: None)
    before: Answer | None = None

    def hold(self, seconds: float = 3600.0) -> None:
        """Do nothing."""
        self.ended.wait(seconds)

    def upload(self) -> Iterator[bytes]:
        """The body of the request as it comes."""
        for piece in self.wire.pieces(self.request.length):
            self.note(len(piece))
            yield piece

    def ask(self, body: Iterator[bytes] | None = None) -> Answer:
        """What the server answers; `body`: what it gets instead of the body of the request.

        Raises:
            ClosedError: the upload ended early, here or there.
        """
        connection = http.client.HTTPConnection(*self.upstream, timeout=UPSTREAM_S)
        try:
            connection.putrequest(self.request.method, self.request.target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.request.headers:
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            if self.request.header("content-length"):
                connection.putheader("Content-Length", str(self.request.length))
            connection.endheaders()
            with suppress(BrokenPipeError, ConnectionResetError):  # who refuses early has answered already
                for piece in self.upload() if body is None else body:
                    connection.send(piece)
            if not self.wire.open:
                raise ClosedError
            return _complete(connection.getresponse(), self.request.method)
        except (OSError, http.client.HTTPException) as error:
            raise ClosedError from error
        finally:
            connection.close()

    def forward(self) -> None:
        """What a sound proxy does."""
        answer = self.ask()
        self.wire.send(answer.head() + answer.body)

    def give(self, answer: Answer) -> None:
        """Answer without asking the server; the upload is read first, else the client would not hear it."""
        for _ in self.upload():
            pass
        self.wire.send(answer.head() + (b"" if self.request.method == "HEAD" else answer.body))


def _complete(response: http.client.HTTPResponse, method: str) -> Answer:
    body = response.read()
    headers = tuple((name, value) for name, value in response.getheaders() if name.lower() not in _HOP)
    length = int(response.getheader("Content-Length") or 0) if method == "HEAD" else len(body)
    return Answer(response.status, response.reason, headers, body, length)
