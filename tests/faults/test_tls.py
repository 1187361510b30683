"""https: a certificate that the system trusts is taken, any other is refused for good."""

from __future__ import annotations

import dataclasses
import functools
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shardfs import config
from shardfs.config import Settings
from shardfs.errors import (
    RemoteDeniedError,
    RemoteError,
    RemoteProtocolError,
    RepositoryNotFoundError,
    UsageError,
)
from shardfs.formats.ids import CommitId
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.registry import open_remote
from shardfs.remotes.timedsocket import Timeouts
from shardfs.store.store import Store
from tests.stores import MAIN, make_store

pytestmark = [
    pytest.mark.network,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """The standard library's file server, which ignores byte ranges."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "certificate.pem"
    new = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(path)]
    subprocess.run([*new, *names, *files], check=True, capture_output=True)
    return path


@pytest.fixture
def published(tmp_path: Path, certificate: Path) -> Iterator[tuple[int, Store, list[CommitId]]]:
    store, commits = make_store(tmp_path / "www" / "demo", 2)
    handler = functools.partial(Quiet, directory=str(tmp_path / "www"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # refused handshakes are the point
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "key.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1], store, commits
    server.shutdown()
    thread.join()
    server.server_close()
    store.close()


def test_trusted_certificate(
    published: tuple[int, Store, list[CommitId]], certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    port, store, commits = published
    for host in ("localhost", "127.0.0.1"):
        remote = HttpRemote(f"https://{host}:{port}/demo")
        assert remote.refs().refs == {MAIN: commits[-1]}
        for pack in remote.list_packs():
            data = store.layout.pack(pack.id).read_bytes()
            assert remote.read_pack(pack.id, 100, 500) == data[100:600]
        remote.close()


def test_unknown_certificate_is_refused(published: tuple[int, Store, list[CommitId]]) -> None:
    remote = HttpRemote(f"https://localhost:{published[0]}/demo")
    with pytest.raises(RemoteDeniedError, match="certificate") as caught:
        remote.refs()
    assert not caught.value.retryable
    remote.close()


def settings(**changes: str) -> Settings:
    return dataclasses.replace(config.load(None), **changes)  # type: ignore[arg-type]


def test_authority_of_a_setting(published: tuple[int, Store, list[CommitId]], certificate: Path) -> None:
    port, _, commits = published
    remote = open_remote(f"https://localhost:{port}/demo", settings=settings(ca_file=str(certificate)))
    assert remote.refs().refs == {MAIN: commits[-1]}
    remote.close()


def test_certificate_errors_say_which_and_what_to_do(published: tuple[int, Store, list[CommitId]]) -> None:
    url = f"https://localhost:{published[0]}/demo"
    remote = open_remote(url, settings=settings())
    with pytest.raises(RemoteDeniedError, match=r"not trusted: self.signed certificate; `remote.ca_file`") as caught:
        remote.refs()
    assert url in str(caught.value)
    remote.close()


def test_a_certificate_for_another_name_is_refused(certificate: Path) -> None:
    with tls_server(certificate) as port:
        remote = open_remote(f"https://ip6-localhost.invalid:{port}/demo", settings=settings(ca_file=str(certificate)))
        with pytest.MonkeyPatch.context() as patch:
            found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
            patch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
            with pytest.raises(RemoteDeniedError, match=r"not trusted: Hostname mismatch"):
                remote.refs()
        remote.close()


def test_own_certificate_is_shown(tmp_path: Path, certificate: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(certificate.read_bytes() + (tmp_path / "key.pem").read_bytes())
    with tls_server(certificate, wants=certificate) as port:
        trusting = settings(ca_file=str(certificate))
        remote = open_remote(f"https://localhost:{port}/demo", settings=trusting)
        with pytest.raises(RemoteDeniedError, match="certificate required"):
            remote.refs()
        remote.close()
        known = dataclasses.replace(trusting, client_cert=str(both))
        remote = open_remote(f"https://localhost:{port}/demo", settings=known)
        with pytest.raises(RepositoryNotFoundError):  # it was let in
            remote.refs()
        remote.close()


@pytest.mark.parametrize("key", ["ca_file", "client_cert"])
def test_files_that_are_of_no_use_are_named(tmp_path: Path, key: str) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("nonsense")
    for path, said in ((nonsense, "PEM form"), (tmp_path / "gone", "cannot be read: No such file")):
        with pytest.raises(UsageError, match=f"remote.{key}: .*{said}"):
            open_remote("https://localhost/demo", settings=settings(**{key: str(path)}))


@contextmanager
def tls_server(certificate: Path, wants: Path | None = None) -> Iterator[int]:
    """A server of nothing; `wants`: whoever signed the certificate that clients have to show."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Empty)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    if wants is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(wants)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


class Empty(http.server.BaseHTTPRequestHandler):
    """Has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_tls_where_there_is_none_and_none_where_there_is(published: tuple[int, Store, list[CommitId]]) -> None:
    quick = Timeouts(connect_s=2, answer_s=2, idle_s=2)
    plain = HttpRemote(f"http://localhost:{published[0]}/demo", timeouts=quick)
    with pytest.raises(RemoteError):
        plain.refs()
    plain.close()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    remote = HttpRemote(f"https://127.0.0.1:{server.server_address[1]}/demo", timeouts=quick)
    with pytest.raises((RemoteError, RemoteProtocolError)):
        remote.refs()
    remote.close()
    server.shutdown()
    thread.join()
    server.server_close()
