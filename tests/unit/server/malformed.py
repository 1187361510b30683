"""Requests that are wrong in one way or several, made up by a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

ID = b"ab" * 32
METHODS = (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE")
ENDPOINTS = (
    b"/demo/info/refs",
    b"/demo/info/packs",
    b"/demo/has",
    b"/demo/packs/ab/" + ID + b".pack",
    b"/demo/packs/" + ID,
    b"/demo/packs/" + ID + b"/table",
    b"/demo/blocks/" + ID,
    b"/demo/manifests/" + ID,
    b"/demo/refs/heads/main",
    b"/demo/refs/tags/v1",
    b"/healthz",
    b"/metrics",
    b"/openapi.yaml",
)
NUMBERS = (b"0", b"-1", b"+3", b"1e3", b"0x10", b"007", b" 5", b"5 5", b"", b"9" * 19, b"9" * 40, b"9" * 5000, b"\xb2")
HEADERS = (
    b"Range",
    b"If-Match",
    b"If-None-Match",
    b"If-Range",
    b"If-Modified-Since",
    b"Content-Range",
    b"Content-Type",
    b"Content-Encoding",
    b"Transfer-Encoding",
    b"Content-Length",
    b"Expect",
    b"Upgrade",
    b"Connection",
    b"Host",
    b"Authorization",
    b"X-Forwarded-For",
    b"Accept-Encoding",
    b"Cookie",
    b"Origin",
    b"HTTP2-Settings",
)
VALUES = (
    b"bytes=0-",
    b"bytes=-1",
    b"bytes=5-1",
    b"bytes=0-0,2-3",
    b"bytes=" + b"9" * 30 + b"-",
    b"bytes=a-b",
    b"bytes 0-1/2",
    b"bytes */*",
    b"bytes 5-1/0",
    b"*",
    b'"' + ID + b'"',
    b'W/"' + ID + b'"',
    b'""',
    b"chunked",
    b"chunked, chunked",
    b"gzip",
    b"identity",
    b"100-continue",
    b"websocket",
    b"h2c",
    b"Bearer " + ID,
    b"Basic !!!",
    b"Basic " + b"QQ==" * 500,
    b"Thu, 99 Foo 2026 99:99:99 GMT",
    b"127.0.0.1, ::1, \xff",
    b"text/plain; charset=\xff\xfe",
    b"\x00",
    b"a" * 9000,
    b"\r\n folded",
    b"x\rX-Injected: 1",
    b"\xf0\x9f\x92\xa9",
)
SIZES = (b"0", b"1", b"3", b"F" * 16, b"F" * 60, b"-1", b"zz", b"3;ext=" + b"a" * 5000, b" 3", b"0x3", b"")


def noise(chance: random.Random, most: int) -> bytes:
    return chance.randbytes(chance.randrange(most))


def path(chance: random.Random) -> bytes:
    """One of the endpoints, whole or broken."""
    found = bytearray(chance.choice(ENDPOINTS))
    for _ in range(chance.choice((0, 0, 0, 1, 3))):
        where = chance.randrange(len(found))
        broken = (b"", b"/", b"..", b"%", b"%00", b"%2f", b"%ff", b"?a=b", b"#", b"\\", b"*", b"//", noise(chance, 4))
        found[where : where + chance.randrange(3)] = chance.choice(broken)
    return bytes(found)


def body(chance: random.Random) -> tuple[Sequence[bytes], bytes]:
    """Headers that describe a body, and a body, which need not fit."""
    data = noise(chance, 300)
    kind = chance.randrange(5)
    if kind == 0:
        return (), b""
    if kind == 1:
        return (b"Content-Length: %d" % max(0, len(data) + chance.choice((-5, 0, 0, 5, 1 << 40))),), data
    if kind == 2:
        return (b"Content-Length: " + chance.choice(NUMBERS),), data
    chunks = b"".join(
        chance.choice((b"%x" % len(data), b"%x" % len(data), chance.choice(SIZES)))
        + chance.choice((b"\r\n", b"\r\n", b"\n", b""))
        + data
        + chance.choice((b"\r\n", b"\r\n", b""))
        for _ in range(chance.randrange(4))
    )
    ending = chance.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nTrailer: x\r\n\r\n", b"0\r\n" + b"T: x\r\n" * 500, b""))
    headers = (b"Transfer-Encoding: chunked",)
    return headers if kind == 3 else (*headers, b"Content-Length: 5"), chunks + ending


def request(chance: random.Random) -> bytes:
    """Something that looks like a request, from almost right to noise."""
    if chance.random() < 0.05:
        return noise(chance, 2000)
    method = chance.choice((*METHODS * 12, b"PATCH", b"get", b"OPTIONS", b"CONNECT", b"", b"G\x00T", b"A" * 3000))
    version = chance.choice((*(b"HTTP/1.1",) * 60, b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.1 ", b"HTTP/x", b"", b"HTTP/1"))
    described, data = body(chance)
    headers = [b"Host: x", *described]
    for _ in range(chance.choice((0, 0, 0, 1, 1, 1, 2, 3, 200))):
        separator = chance.choice((*(b": ",) * 40, b":", b" : ", b"", b":\t", b"\x00: "))
        name = chance.choice(HEADERS) if chance.random() < 0.98 else noise(chance, 20)
        headers.append(name + separator + chance.choice(VALUES))
    chance.shuffle(headers)
    end = chance.choice((*(b"\r\n",) * 60, b"\n", b"\r"))
    head = b" ".join((method, path(chance), version)) + end + b"".join(header + end for header in headers) + end
    return change(chance, head) + data


def change(chance: random.Random, head: bytes) -> bytes:
    """The same head with a byte of it lost, doubled or another, or none of that."""
    where = chance.randrange(len(head))
    changes: Sequence[Callable[[], bytes]] = (
        lambda: head[:where] + head[where + 1 :],
        lambda: head[:where] + head[where : where + 9] + head[where:],
        lambda: head[:where] + chance.randbytes(1) + head[where + 1 :],
        lambda: head[:where],
        *(lambda: head,) * 40,
    )
    return chance.choice(changes)()
