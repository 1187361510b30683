"""Clients that are slow, or too many: cut off or turned away, while others are served."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.formats.ids import chunk_id
from tests.certificates import make_certificate
from tests.prometheus import parse
from tests.serving import shardfs_serve
from tests.stores import make_store
from tests.unit.server.byhand import ask

pytestmark = pytest.mark.network

QUICK = ("--head-timeout", "0.5", "--slow-after", "0.5", "--min-speed", "100K")


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)


def count(url: str, name: str, **labels: str) -> float:
    """A number of the server's metrics; 0 when it is not told."""
    families = parse(ask(url, "GET", "/metrics").body.decode())
    return families[f"shardfs_server_{name}"].samples.get(tuple(labels.items()), 0.0)


def ended(client: socket.socket) -> bytes:
    """What still comes, until the other side ends it."""
    data = b""
    try:
        while piece := client.recv(1 << 20):
            data += piece
    except ConnectionResetError:
        pass
    return data


@contextmanager
def dripping(client: socket.socket, data: bytes) -> Iterator[None]:
    """Send a byte of `data` again and again."""
    stop = threading.Event()

    def drip() -> None:
        while not stop.wait(0.05):
            try:
                client.sendall(data)
            except OSError:
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """A server with little patience, and the path of a pack that fills all buffers on its way."""
    root = tmp_path_factory.mktemp("root")
    store, _ = make_store(root / "demo")
    store.close()
    large = bytes(48 << 20)
    name = chunk_id(large).hex()
    path = root / "demo/packs" / name[:2] / f"{name}.pack"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(large)
    with shardfs_serve(root, *QUICK) as server:
        yield server.url, f"/demo/packs/{name[:2]}/{name}.pack"


def test_fresh_connection_that_says_nothing(quick: tuple[str, str]) -> None:
    before = count(quick[0], "cut_off_total", slow_with="head")
    with connect(quick[0]) as client:
        assert ended(client) == b""
    assert count(quick[0], "cut_off_total", slow_with="head") == before + 1


def test_head_that_comes_byte_by_byte(quick: tuple[str, str]) -> None:
    with connect(quick[0]) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ")
        with dripping(client, b"a"):
            assert ended(client) == b""


def test_second_head_that_comes_byte_by_byte(quick: tuple[str, str]) -> None:
    with connect(quick[0]) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        time.sleep(1)  # between requests a connection may be idle for longer
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET ")
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        with dripping(client, b"a"):
            assert ended(client) == b""


def test_body_that_comes_byte_by_byte(quick: tuple[str, str]) -> None:
    for path in (f"/demo/packs/{'0' * 64}", f"/demo/blocks/{'0' * 64}"):
        with connect(quick[0]) as client:
            client.sendall(f"PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999999\r\n\r\n".encode())
            with dripping(client, b"a"):
                assert ended(client).startswith(b"HTTP/1.1 408")


def test_reader_that_stops_reading(quick: tuple[str, str]) -> None:
    url, path = quick
    before = count(url, "cut_off_total", slow_with="answer")
    with connect(url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        wait_until(lambda: count(url, "cut_off_total", slow_with="answer") == before + 1)
        assert len(ended(client)) < 48 << 20
    wait_until(lambda: count(url, "requests_in_progress") == 1)  # this question itself


def test_reader_that_takes_a_little_now_and_then(quick: tuple[str, str]) -> None:
    url, path = quick
    before = count(url, "cut_off_total", slow_with="answer")
    with connect(url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with suppress(ConnectionResetError):
            while client.recv(500):
                time.sleep(0.05)
    assert count(url, "cut_off_total", slow_with="answer") == before + 1


def test_reader_that_asks_again_and_again_and_reads_nothing(quick: tuple[str, str]) -> None:
    with connect(quick[0]) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(10)
        with suppress(ConnectionError):
            while True:
                client.sendall(b"GET /demo/info/packs HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000)


def wait_until(true: object) -> None:
    assert callable(true)
    for _ in range(400):
        if true():
            return
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def test_steady_clients_are_left_alone(quick: tuple[str, str]) -> None:
    """Slower than a disk and faster than the limit, for several times as long as speed is measured."""
    url, path = quick
    with connect(url) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nRange: bytes=0-1999999\r\n\r\n".encode())
        got = 0
        while got < 2_000_000:
            piece = client.recv(40_000)
            assert piece
            got += len(piece)
            time.sleep(0.03)


def test_handshake_that_stops(tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    options = (*QUICK, "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key), "--max-connections", "2")
    with shardfs_serve(tmp_path / "root", *options) as server:
        with connect(server.url) as silent, connect(server.url) as second, connect(server.url) as refused:
            second.sendall(b"\x16\x03\x01")
            assert ended(refused) == b""  # they count before they have shaken hands
            assert ended(silent) == b""
            assert ended(second) == b""
        context = ssl.create_default_context(cafile=str(pair.certificate))
        with connect(server.url) as client, context.wrap_socket(client, server_hostname="localhost") as safe:
            safe.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert ended(safe).startswith(b"HTTP/1.1 200")


def test_many_connections(tmp_path: Path) -> None:
    with shardfs_serve(tmp_path, "--max-connections-per-address", "3") as server, ExitStack() as open_:
        clients = [open_.enter_context(connect(server.url)) for _ in range(3)]
        for client in clients:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        with connect(server.url) as fourth:
            answer = ended(fourth)
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"Retry-After: " in answer
        clients[0].close()
        wait_until(lambda: ask_quietly(server.url) == 200)
        clients[1].close()
        time.sleep(0.1)
        wait_until(lambda: ask_quietly(server.url) == 200 and count(server.url, "connections") == 2)
        assert count(server.url, "refused_total", limit="connections_per_address") >= 1


def ask_quietly(url: str) -> int:
    """The status of an answer; the server may not know yet that others are gone."""
    try:
        return ask(url, "GET", "/healthz").status
    except ConnectionError:
        return 0


def test_many_requests(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "demo", 1)
    store.close()
    with shardfs_serve(tmp_path, "--max-rate", "1") as server:
        answers = [ask(server.url, "GET", "/demo/info/refs") for _ in range(12)]
        assert [answer.status for answer in answers[:10]] == [200] * 10
        assert answers[-1].status == 429
        assert int(answers[-1].headers["Retry-After"]) >= 1
        assert answers[-1].error
        assert ask(server.url, "GET", "/healthz").status == 200
        wait_until(lambda: ask(server.url, "GET", "/demo/info/refs").status == 200)
        assert count(server.url, "refused_total", limit="rate") >= 1


def test_many_uploads(tmp_path: Path) -> None:
    with shardfs_serve(tmp_path, "--max-uploads", "1") as server:
        with connect(server.url) as first:
            first.sendall(
                f"PUT /demo/packs/{'0' * 64} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nx".encode()
            )
            wait_until(lambda: count(server.url, "uploads_in_progress") == 1)
            answer = ask(server.url, "PUT", f"/demo/blocks/{chunk_id(b'x').hex()}", b"x")
            assert answer.status == 503
            assert int(answer.headers["Retry-After"]) >= 1
            assert count(server.url, "refused_total", limit="uploads") == 1
        wait_until(lambda: ask(server.url, "PUT", f"/demo/blocks/{chunk_id(b'x').hex()}", b"x").status == 201)


def test_many_questions(tmp_path: Path) -> None:
    """They are in memory until they are complete; whoever may only read takes no place of an upload with them."""
    store, _ = make_store(tmp_path / "demo", 1)
    store.close()
    with shardfs_serve(tmp_path, "--max-uploads", "1") as server:
        with connect(server.url) as first:
            first.sendall(b"POST /demo/has HTTP/1.1\r\nHost: localhost\r\nContent-Length: 64\r\n\r\nx")
            wait_until(lambda: ask(server.url, "POST", "/demo/has", bytes(32)).status == 503)
            assert count(server.url, "refused_total", limit="questions") >= 1
            assert ask(server.url, "PUT", f"/demo/blocks/{chunk_id(b'x').hex()}", b"x").status == 201
        wait_until(lambda: ask(server.url, "POST", "/demo/has", bytes(32)).status == 200)


def test_speed_of_an_address(tmp_path: Path) -> None:
    """Two connections share what their address may have."""
    root = tmp_path / "root"
    store, _ = make_store(root / "demo", 1)
    store.close()
    data = bytes(12 << 20)
    name = chunk_id(data).hex()
    path = root / "demo/packs" / name[:2] / f"{name}.pack"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    request = (
        f"GET /demo/packs/{name[:2]}/{name}.pack HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )

    def seconds(*options: str) -> float:
        with shardfs_serve(root, *options) as server, connect(server.url) as one, connect(server.url) as two:
            began = time.monotonic()
            for client in (one, two):
                client.sendall(request)
            other = threading.Thread(target=ended, args=(two,))
            other.start()
            assert len(ended(one)) > len(data)
            other.join()
            return time.monotonic() - began

    assert seconds("--max-speed", "12M") > 1.0 > seconds()
