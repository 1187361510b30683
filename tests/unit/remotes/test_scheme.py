"""URLs with http:// for https:// and the other way round: said at once, and only where it is so."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import RemoteProtocolError, RemoteTimeoutError, RemoteUnavailableError, RemoteUnreachableError
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.registry import open_remote
from shardfs.remotes.timedsocket import Timeouts
from tests.certificates import OPENSSL, Pair, make_certificate
from tests.faults.badserver import BadServer
from tests.nginx import NGINX, free_port, nginx
from tests.serving import serving, shardfs_serve

pytestmark = pytest.mark.network

IS_HTTPS = "it speaks TLS; its URL begins with https://"
with_openssl = pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_certificate(tmp_path)


@with_openssl
def test_http_to_our_own_server_with_tls(tmp_path: Path, pair: Pair) -> None:
    with shardfs_serve(tmp_path / "root", "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)) as server:
        remote = open_remote(server.url.replace("https://", "http://") + "/demo")
        with pytest.raises(RemoteProtocolError, match=IS_HTTPS):
            remote.refs()


@with_openssl
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
def test_http_to_a_web_server_that_answers_400(tmp_path: Path, pair: Pair) -> None:
    port = free_port()
    keys = f"ssl_certificate {pair.certificate}; ssl_certificate_key {pair.key};"
    configuration = f"events {{}}\nhttp {{\n access_log off; server {{ listen 127.0.0.1:{port} ssl; {keys} }} }}"
    with nginx(tmp_path, configuration, port), pytest.raises(RemoteProtocolError, match=IS_HTTPS):
        open_remote(f"http://127.0.0.1:{port}/demo").refs()


def test_http_to_a_server_that_sends_an_alert() -> None:
    server = BadServer(lambda client: client.sendall(b"\x15\x03\x01\x00\x02\x02\x46"))
    try:
        with pytest.raises(RemoteProtocolError, match=IS_HTTPS):
            open_remote(server.url).refs()
        assert len(server.requests) == 1
    finally:
        server.close()


def test_https_to_a_server_without_tls(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        remote = HttpRemote(server.url.replace("http://", "https://") + "/demo")
        with pytest.raises(RemoteUnreachableError, match="it does not speak TLS; for plain HTTP the URL begins with"):
            remote.refs()


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def test_http_to_a_server_that_says_nothing(silent: socket.socket) -> None:
    remote = HttpRemote(f"http://127.0.0.1:{silent.getsockname()[1]}/demo", timeouts=Timeouts(answer_s=0.2))
    with pytest.raises(RemoteTimeoutError, match=r"should the URL begin with https://\?$"):
        remote.refs()


def test_a_server_that_hangs_up_is_asked_for_tls_once_and_not_accused_of_it() -> None:
    server = Closing()
    try:
        remote = HttpRemote(server.url)
        for _ in range(2):
            with pytest.raises(RemoteUnavailableError) as caught:
                remote.refs()
            assert "https" not in str(caught.value)
        assert server.connections == 3
    finally:
        server.close()


class Closing(BadServer):
    """Ends every connection."""

    connections = 0

    def _serve(self, client: socket.socket) -> None:
        self.connections += 1
        with client:
            client.recv(1)
