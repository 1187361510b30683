"""https: a certificate that the system trusts is taken, any other is refused for good."""

from __future__ import annotations

import functools
import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import RemoteDeniedError, RemoteError, RemoteProtocolError
from shardfs.formats.ids import CommitId
from shardfs.remotes.http import HttpRemote
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
