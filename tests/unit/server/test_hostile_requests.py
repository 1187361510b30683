"""Requests that try to get in, out or over: refused in one line, with nothing changed."""

from __future__ import annotations

import os
import socket
from urllib.parse import urlsplit

import pytest
import zstandard

from shardfs.formats import pack as pack_format
from shardfs.formats import wire
from shardfs.formats.ids import ID_SIZE, CommitId, Kind, chunk_id, content_id
from shardfs.formats.pack import HEADER
from shardfs.store.store import Store
from tests.unit.server.byhand import Hosted, ask

pytestmark = pytest.mark.network


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/demo",
        "/demo/",
        "/demo/info",
        "/demo/info/other",
        "/demo/config.toml",
        "/demo/HEAD",
        "/demo/index.sqlite",
        "/demo/logs/refs/heads/main",
        "/demo/lock",
        "/demo/packs/",
        "/demo/packs/00/" + "0" * 64 + ".pack",
        "/demo/packs/ff/" + "0" * 64 + ".pack",
        "/demo/packs/" + "0" * 64 + "/table",
        "/demo/packs/" + "0" * 63 + "/table",
        "/demo/blocks/" + "0" * 64,
        "/demo/blocks/" + "A" * 64,
        "/demo/manifests/..",
        "/absent/info/refs",
        "/absent/has",
        "/favicon.ico",
    ],
)
def test_what_is_not_there(hosted: Hosted, path: str) -> None:
    answer = ask(hosted.url, "GET", path)
    assert answer.status in (400, 404, 405)
    assert str(hosted.root) not in answer.error


def raw(url: str, request: bytes, *, end: bool = False) -> bytes:
    """The status line that bytes sent as they are get."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
        client.sendall(request)
        if end:
            client.shutdown(socket.SHUT_WR)
        data = b""
        while piece := client.recv(65536):
            data += piece
    assert b"Traceback" not in data
    assert b"format = 1" not in data
    return data.split(b"\r\n", 1)[0]


@pytest.mark.parametrize(
    "path",
    [
        b"/../../../../etc/passwd",
        b"/demo/../demo/config.toml",
        b"/demo/packs/../config.toml",
        b"/demo/..%2fdemo/info/refs",
        b"/%2e%2e/%2e%2e/info/refs",
        b"/..%2f..%2f/info/refs",
        b"/demo%2finfo/refs",
        b"//demo/info/refs",
        b"/demo//info/refs",
        b"/./demo/info/refs",
        b"/.git/info/refs",
        b"/%64emo/info/refs",
        b"/demo%00/info/refs",
        b"/demo/refs/heads/..%2f..%2fHEAD",
        b"/demo/refs/heads/../../HEAD",
        b"/demo/refs/heads/a%00b",
        b"/demo/refs/heads/a%0ab",
        b"/demo/refs/heads/%ff%fe",
        b"/demo/refs/heads//a",
        b"/demo/refs/heads/a.lock",
        b"/demo/refs/tmp/x",
        b"/demo/blocks/..%2f..%2fHEAD",
        b"/demo/manifests/%2e%2e",
        b"/demo/manifests/..",
        b"/demo/packs/aa/../../HEAD.pack",
        b"C:\\windows\\system32",
        b"http://127.0.0.1/../etc/passwd",
        b"*",
        b"/" + b"a" * 7000 + b"/info/refs",
        b"/" + b"a/" * 50 + b"info/refs",
        b"/\xff\xfe/info/refs",
    ],
)
@pytest.mark.parametrize("method", [b"GET", b"PUT", b"DELETE"])
def test_hostile_paths(hosted: Hosted, method: bytes, path: bytes) -> None:
    before = sorted(hosted.root.rglob("*"))
    head = method + b" " + path + b' HTTP/1.1\r\nHost: x\r\nIf-Match: "' + b"0" * 64 + b'"\r\n'
    status = raw(hosted.url, head + b"Connection: close\r\nContent-Length: 3\r\n\r\nabc")
    assert status.split()[1][:1] == b"4", status
    assert sorted(hosted.root.rglob("*")) == before


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x00\xa5\x01\x00\x00",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
        b"PUT /demo/blocks/" + b"0" * 64 + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        bytes(5000) + b"\r\n\r\n",
    ],
)
def test_not_http(hosted: Hosted, request_: bytes) -> None:
    try:
        status = raw(hosted.url, request_, end=True)
    except ConnectionError:
        status = b""
    assert status == b"" or status.split()[1][:1] == b"4", status
    assert ask(hosted.url, "GET", "/healthz").status == 200


def damaged_packs(data: bytes) -> dict[str, bytes]:
    """Ways in which a pack can be wrong, its id made to fit where that is the harder case."""
    flipped = bytearray(data)
    flipped[len(HEADER) + 5] ^= 1
    table = bytearray(data)
    table[-70] ^= 1
    return {
        "empty": b"",
        "cut": data[: len(data) // 2],
        "longer": data + b"x",
        "payload": bytes(flipped),
        "table": bytes(table),
        "noise": os.urandom(1000),
    }


@pytest.mark.parametrize("damage", list(damaged_packs(bytes(1000))))
@pytest.mark.parametrize("fit", [True, False])
def test_damaged_packs_are_refused(hosted: Hosted, other: tuple[Store, list[CommitId]], damage: str, fit: bool) -> None:
    pack_id = next(iter(other[0].index.packs()))
    data = damaged_packs(other[0].layout.pack(pack_id).read_bytes())[damage]
    name = chunk_id(data).hex() if fit else pack_id.hex()
    answer = ask(hosted.url, "PUT", f"/demo/packs/{name}", data)
    assert answer.status == 400
    assert answer.error
    assert not (hosted.root / "demo/packs" / name[:2] / f"{name}.pack").exists()
    assert list((hosted.root / "demo/tmp").iterdir()) == []


Bases = tuple[bytes, ...]


def make_pack(entries: list[tuple[Kind, bytes, int, bytes, int, Bases]]) -> tuple[str, bytes]:
    """A pack of (kind, id, codec, payload, raw size, bases) whatever they are."""
    data = bytearray(HEADER)
    table = []
    for kind, id_, codec, payload, raw_size, bases in entries:
        table.append(pack_format.Entry(id_, kind, codec, len(data), len(payload), raw_size, bases))
        data += payload
    data += pack_format.tail_to_bytes(table, len(data))
    return chunk_id(data).hex(), bytes(data)


def _bomb() -> bytes:
    """A zstd frame of 100 KiB that declares, and holds, 1 GiB."""
    compressor = zstandard.ZstdCompressor().compressobj(size=1 << 30)
    return b"".join([*(compressor.compress(bytes(1 << 20)) for _ in range(1 << 10)), compressor.flush()])


BOMB = _bomb()
HOSTILE_TREE = b'{"entries":[{"kind":"link","name":"../x","target":"/etc"}],"type":"tree","version":1}'


@pytest.mark.parametrize(
    "entry",
    [
        (Kind.CHUNK, b"\1" * 32, 0, b"hello", 5, ()),  # not its id
        (Kind.CHUNK, chunk_id(b"hello"), 77, b"hello", 5, ()),  # unknown codec
        (Kind.CHUNK, chunk_id(b"hello"), 0, b"hell", 5, ()),  # wrong size
        (Kind.CHUNK, chunk_id(b"hello"), 1, b"hello", 5, ()),  # not zstd
        (Kind.CHUNK, chunk_id(b"hello"), 1, BOMB, 16 << 20, ()),  # declares 1 GiB
        (Kind.CHUNK, chunk_id(b"hello"), 1, BOMB, 1 << 30, ()),
        (Kind.CHUNK, chunk_id(b"hello"), 0, b"hello", 5, (chunk_id(b"hello"),)),  # a base that raw has no use for
        (Kind.CHUNK, chunk_id(b"hello"), 0, b"hello", 5, (b"\3" * 32,)),
        (Kind.TREE, content_id(Kind.TREE, HOSTILE_TREE), 0, HOSTILE_TREE, len(HOSTILE_TREE), ()),
        (Kind.COMMIT, content_id(Kind.COMMIT, b"{}"), 0, b"{}", 2, ()),
        (Kind.MANIFEST, content_id(Kind.MANIFEST, b"[1]"), 0, b"[1]", 3, ()),
        (Kind.TREE, chunk_id(b"hello"), 0, b"hello", 5, ()),  # a chunk posing as a tree
    ],
)
def test_hostile_packs_are_refused(hosted: Hosted, entry: tuple[Kind, bytes, int, bytes, int, Bases]) -> None:
    name, data = make_pack([entry])
    answer = ask(hosted.url, "PUT", f"/demo/packs/{name}", data)
    assert answer.status in (400, 404), answer.body
    assert answer.error
    assert name not in ask(hosted.url, "GET", "/demo/info/packs").body.decode()


def test_declared_size_is_refused_before_it_is_sent(hosted: Hosted) -> None:
    request = f"PUT /demo/packs/{'0' * 64} HTTP/1.1\r\nHost: x\r\nContent-Length: {1 << 40}\r\n\r\n"
    parts = urlsplit(hosted.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
        client.sendall(request.encode())
        assert client.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("request_line", "limit"),
    [("PUT /demo/refs/heads/new", 128), ("POST /demo/has", wire.MAX_HAS_IDS * ID_SIZE)],
)
def test_bodies_that_say_no_length_are_bounded(hosted: Hosted, request_line: str, limit: int) -> None:
    head = f"{request_line} HTTP/1.1\r\nHost: x\r\nIf-None-Match: *\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = urlsplit(hosted.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
        client.sendall(head.encode() + b"%x\r\n" % (limit + ID_SIZE) + b"0" * (limit + ID_SIZE) + b"\r\n0\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 413")


def test_coded_bodies_are_refused(hosted: Hosted) -> None:
    answer = ask(hosted.url, "PUT", f"/demo/blocks/{'0' * 64}", b"x" * 100, Content_Encoding="gzip")
    assert answer.status == 415


def test_body_is_asked_for_when_it_is_wanted(hosted: Hosted) -> None:
    parts = urlsplit(hosted.url)
    data = b"wanted"
    for path, expected, answer in (
        (f"/demo/blocks/{chunk_id(data).hex()}", b"100-continue", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (f"/demo/blocks/{'A' * 64}", b"100-continue", b"HTTP/1.1 404"),
        (f"/demo/blocks/{chunk_id(data).hex()}", b"\xff\xfe", b"HTTP/1.1 417"),
        (f"/demo/packs/{'0' * 64}", b"100-continue\r\nContent-Range: bytes 4-9/10", b"HTTP/1.1 416"),
    ):
        with socket.create_connection((parts.hostname, parts.port), timeout=20) as client:
            head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\nExpect: ".encode()
            client.sendall(head + expected + b"\r\n\r\n")
            assert client.recv(len(answer)) == answer
            if b"100" in answer:
                client.sendall(data)
                assert client.recv(12) == b"HTTP/1.1 201"
