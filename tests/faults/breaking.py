"""What a network, a proxy or a server can do to one exchange. Each fault is a function; the name is its own."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from tests.faults.exchange import Answer, ClosedError, Exchange, Wire

LATE_S = 0.4  # of an answer that comes after all
DRIP_BYTES_PER_S = 5
ENDLESS_BYTES = 256 << 20  # more than a client may hold in memory

Fault = Callable[[Exchange], None]
Greeting = Callable[[Wire, socket.socket, Callable[[float], object]], None]

FAULTS: Final[dict[str, Fault]] = {}
UPLOAD_FAULTS: Final[dict[str, Fault]] = {}  # only requests with a body can meet them
GREETING_FAULTS: Final[dict[str, Greeting]] = {}  # a connection meets them before its first byte of TLS


def _fault(function: Fault) -> Fault:
    FAULTS[function.__name__.replace("_", "-")] = function
    return function


def _upload_fault(function: Fault) -> Fault:
    UPLOAD_FAULTS[function.__name__.replace("_", "-")] = function
    return function


def _greeting_fault(function: Greeting) -> Greeting:
    GREETING_FAULTS[function.__name__.replace("_", "-")] = function
    return function


def _some(exchange: Exchange, data: bytes) -> bytes:
    """A beginning of `data`, never all of it."""
    return data[: exchange.chance.randrange(len(data))] if data else b""


def _flipped(exchange: Exchange, data: bytes) -> bytes:
    place = exchange.chance.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << exchange.chance.randrange(8)]) + data[place + 1 :]


# Connections


@_fault
def reset(exchange: Exchange) -> None:
    """The connection breaks before an answer."""
    exchange.wire.reset()


@_fault
def reset_in_head(exchange: Exchange) -> None:
    """The connection breaks in the headers of the answer."""
    exchange.wire.send(_some(exchange, exchange.ask().head()))
    exchange.wire.reset()


@_fault
def reset_in_body(exchange: Exchange) -> None:
    """The connection breaks in the body."""
    answer = exchange.ask()
    exchange.wire.send(answer.head() + _some(exchange, answer.body))
    exchange.wire.reset()


@_fault
def cut(exchange: Exchange) -> None:
    """The connection ends in good order in the middle of the body."""
    answer = exchange.ask()
    exchange.wire.send(answer.head() + _some(exchange, answer.body))
    exchange.wire.close()


@_fault
def lost_answer(exchange: Exchange) -> None:
    """The server did it; the client hears nothing."""
    exchange.ask()
    exchange.wire.reset()


# Waiting


@_fault
def black_hole(exchange: Exchange) -> None:
    """The request is taken and never answered."""
    exchange.hold()
    exchange.wire.reset()


@_fault
def stall(exchange: Exchange) -> None:
    """The body stops in the middle and never goes on."""
    answer = exchange.ask()
    exchange.wire.send(answer.head() + _some(exchange, answer.body))
    exchange.hold()
    exchange.wire.reset()


@_fault
def drip(exchange: Exchange) -> None:
    """The answer comes at 5 bytes per second."""
    answer = exchange.ask()
    for byte in answer.head() + answer.body:
        exchange.wire.send(bytes([byte]))
        exchange.hold(1 / DRIP_BYTES_PER_S)
        if exchange.ended.is_set():
            break
    exchange.wire.reset()


@_fault
def late(exchange: Exchange) -> None:
    """The answer is right and comes late."""
    exchange.hold(LATE_S)
    exchange.forward()


# Bytes


@_fault
def flip(exchange: Exchange) -> None:
    """One bit of the body is another."""
    answer = exchange.ask()
    exchange.wire.send(answer.head() + (_flipped(exchange, answer.body) if answer.body else b""))


@_fault
def garble(exchange: Exchange) -> None:
    """All of the body is something else of the same length."""
    answer = exchange.ask()
    exchange.wire.send(answer.head() + exchange.chance.randbytes(len(answer.body)))


@_fault
def other_answer(exchange: Exchange) -> None:
    """The answer to another request."""
    answer = exchange.ask()
    answer = exchange.before or answer
    exchange.wire.send(answer.head() + (b"" if exchange.request.method == "HEAD" else answer.body))


@_fault
def garbage(exchange: Exchange) -> None:
    """Bytes that are no HTTP."""
    exchange.wire.send(exchange.chance.randbytes(200) + b"\r\n\r\n")
    exchange.wire.close()


@_fault
def two_heads(exchange: Exchange) -> None:
    """The headers come twice, the second time as the begin of the body."""
    answer = exchange.ask()
    exchange.wire.send(answer.head() * 2 + answer.body)
    exchange.wire.close()


@_fault
def two_lengths(exchange: Exchange) -> None:
    """Two headers disagree about the length."""
    answer = exchange.ask()
    exchange.wire.send(answer.head().replace(b"\r\n", b"\r\nContent-Length: 7\r\n", 1) + answer.body)
    exchange.wire.close()


@_fault
def endless(exchange: Exchange) -> None:
    """A body without a length that goes on for hundreds of megabytes."""
    head = exchange.ask().head().partition(b"\r\nContent-Length")[0] + b"\r\nConnection: close\r\n\r\n"
    exchange.wire.send(head)
    for _ in range(ENDLESS_BYTES >> 20):
        exchange.wire.send(bytes(1 << 20))
    exchange.wire.close()


@_fault
def coded(exchange: Exchange) -> None:
    """A content coding that was not asked for."""
    answer = exchange.ask()
    exchange.wire.send(answer.head().replace(b"\r\n", b"\r\nContent-Encoding: gzip\r\n", 1) + answer.body)


# Ranges


@_fault
def wrong_range(exchange: Exchange) -> None:
    """Another range than was asked for, and it says so."""
    answer = exchange.ask()
    if answer.status == 206:
        answer = Answer.of(206, answer.body, Content_Range=f"bytes 1-{len(answer.body)}/{len(answer.body) + 9}")
    exchange.wire.send(answer.head() + answer.body)


@_fault
def whole(exchange: Exchange) -> None:
    """Range is ignored: 200 and all of the file."""
    kept = tuple(pair for pair in exchange.request.headers if pair[0].lower() not in ("range", "if-range"))
    exchange.request = replace(exchange.request, headers=kept)
    exchange.forward()


# Statuses


def _refusal(status: int, **headers: str) -> Fault:
    def fault(exchange: Exchange) -> None:
        exchange.give(Answer.of(status, b'{"error": "so it is"}', **headers))

    return fault


FAULTS["400"] = _refusal(400)
FAULTS["401"] = _refusal(401, WWW_Authenticate='Bearer realm="elsewhere"')
FAULTS["403"] = _refusal(403)
FAULTS["404"] = _refusal(404)
FAULTS["429"] = _refusal(429)
FAULTS["429-soon"] = _refusal(429, Retry_After="1")
FAULTS["429-tomorrow"] = _refusal(429, Retry_After="86400")
FAULTS["500"] = _refusal(500)
FAULTS["503"] = _refusal(503)
FAULTS["page"] = lambda exchange: exchange.give(Answer.of(200, b"<html>Please log in</html>", Content_Type="text/html"))


# Redirects

_MOVED: Final = "/moved"


@_fault
def redirect(exchange: Exchange) -> None:
    """To another path of the same server, which has the right answer."""
    target = exchange.request.target
    if target.startswith(_MOVED):
        exchange.request = replace(exchange.request, target=target.removeprefix(_MOVED))
        exchange.forward()
    else:
        exchange.give(Answer.of(307, Location=_MOVED + target))


@_fault
def redirect_away(exchange: Exchange) -> None:
    """To a server that does not exist."""
    exchange.give(Answer.of(302, Location="http://elsewhere.invalid/"))


@_fault
def redirect_loop(exchange: Exchange) -> None:
    """To itself."""
    exchange.give(Answer.of(301, Location=exchange.request.target))


# Uploads


@_upload_fault
def upload_cut(exchange: Exchange) -> None:
    """The server gets a part of the upload, then both ends are closed."""
    left = exchange.chance.randrange(exchange.request.length)

    def part() -> Iterator[bytes]:
        nonlocal left
        for piece in exchange.upload():
            yield piece[:left]
            left -= len(piece)
            if left <= 0:
                raise ClosedError

    try:
        exchange.ask(part())
    finally:
        exchange.wire.reset()


@_upload_fault
def upload_flip(exchange: Exchange) -> None:
    """One bit of the upload is another when it arrives."""
    place = exchange.chance.randrange(exchange.request.length)

    def spoilt() -> Iterator[bytes]:
        start = 0
        for piece in exchange.upload():
            at = place - start
            start += len(piece)
            yield piece[:at] + bytes([piece[at] ^ 4]) + piece[at + 1 :] if 0 <= at < len(piece) else piece

    answer = exchange.ask(spoilt())
    exchange.wire.send(answer.head() + answer.body)


@_upload_fault
def upload_stall(exchange: Exchange) -> None:
    """The upload is not read any further."""
    for number, _ in enumerate(exchange.upload()):
        if number == 1:
            break
    exchange.hold()
    exchange.wire.reset()


# TLS


@_greeting_fault
def tls_late(_wire: Wire, _raw: socket.socket, wait: Callable[[float], object]) -> None:
    """The greeting comes late."""
    wait(LATE_S)


@_greeting_fault
def tls_silent(wire: Wire, _raw: socket.socket, wait: Callable[[float], object]) -> None:
    """The greeting is never answered."""
    wait(3600.0)
    wire.reset()


@_greeting_fault
def tls_cut(wire: Wire, raw: socket.socket, _wait: Callable[[float], object]) -> None:
    """The connection ends in the middle of the greeting."""
    raw.recv(100)
    wire.close()


@_greeting_fault
def tls_garbage(wire: Wire, raw: socket.socket, _wait: Callable[[float], object]) -> None:
    """The greeting is answered with something that is no TLS."""
    raw.recv(1 << 14)
    wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    wire.close()
