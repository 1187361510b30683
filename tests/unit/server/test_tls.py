"""TLS of the server itself: which certificate it shows, and when it looks for another one."""

from __future__ import annotations

import http.client
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.errors import RemoteError, UsageError
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.timedsocket import Timeouts
from shardfs.server.tls import Certificate
from tests.certificates import OPENSSL, Pair, make_certificate
from tests.serving import Server, shardfs_serve
from tests.stores import MAIN, make_store

pytestmark = [pytest.mark.network, pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")]


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_certificate(tmp_path)


def tls(pair: Pair) -> tuple[str, str, str, str]:
    return "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)


def shown(server: Server) -> bytes:
    """The certificate that a new connection gets."""
    parts = urlsplit(server.url)
    assert parts.hostname is not None
    assert parts.port is not None
    return ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((parts.hostname, parts.port), timeout=20))


def wait_for(server: Server, certificate: Path) -> None:
    expected = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    for _ in range(200):
        if shown(server) == expected:
            return
        time.sleep(0.05)
    raise AssertionError("the new certificate is not shown")


def test_reads_and_writes_over_tls(tmp_path: Path, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    store, commits = make_store(tmp_path / "store")
    monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
    with shardfs_serve(tmp_path / "root", *tls(pair)) as server:
        assert server.url.startswith("https://")
        remote = HttpRemote(f"{server.url}/demo")
        for pack_id in store.index.packs():
            remote.put_pack(store.layout.pack(pack_id), pack_id)
        remote.update_ref(MAIN, None, commits[-1])
        assert remote.refs().refs == {MAIN: commits[-1]}
        for pack in remote.list_packs():
            assert remote.read_pack(pack.id, 0, pack.size) == store.layout.pack(pack.id).read_bytes()
        remote.close()
    store.close()


def test_old_versions_and_plain_http_get_nothing(tmp_path: Path, pair: Pair) -> None:
    with shardfs_serve(tmp_path / "root", *tls(pair)) as server:
        parts = urlsplit(server.url)
        assert parts.port is not None
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with socket.create_connection(("127.0.0.1", parts.port), timeout=20) as plain, pytest.raises(ssl.SSLError):
            old.wrap_socket(plain)
        remote = HttpRemote(server.url.replace("https", "http") + "/demo", timeouts=Timeouts(2, 2, 2))
        with pytest.raises(RemoteError):
            remote.refs()
        remote.close()


def test_certificate_is_read_again(tmp_path: Path, pair: Pair) -> None:
    fresh, third = make_certificate(tmp_path, "fresh"), make_certificate(tmp_path, "third")
    with shardfs_serve(tmp_path / "root", *tls(pair)) as server:
        wait_for(server, pair.certificate)
        context = ssl.create_default_context(cafile=str(pair.certificate))
        parts = urlsplit(server.url)
        open_ = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=20, context=context)
        open_.request("GET", "/healthz")
        assert open_.getresponse().read()
        fresh.key.replace(pair.key)  # between the two the files do not belong together: the old pair stays
        server.process.send_signal(signal.SIGHUP)
        assert shown(server)
        fresh.certificate.replace(pair.certificate)
        wait_for(server, pair.certificate)
        open_.request("GET", "/healthz")  # what is open goes on
        assert open_.getresponse().status == 200
        open_.close()
        third.key.replace(pair.key)
        third.certificate.replace(pair.certificate)
        server.process.send_signal(signal.SIGHUP)
        wait_for(server, pair.certificate)


def test_certificates_that_are_no_good(tmp_path: Path, pair: Pair) -> None:
    other = make_certificate(tmp_path, "other")
    noise = tmp_path / "noise"
    noise.write_bytes(bytes(range(256)))
    locked = tmp_path / "locked"
    assert OPENSSL is not None
    encrypt = [OPENSSL, "ec", "-in", str(pair.key), "-out", str(locked), "-aes128", "-passout", "pass:secret"]
    subprocess.run(encrypt, check=True, capture_output=True)
    for chain, key, expected in (
        (pair.certificate, other.key, "the key is that of another certificate"),
        (noise, pair.key, "not a certificate"),
        (pair.certificate, noise, "not a certificate"),
        (pair.certificate, locked, "without a password"),
        (tmp_path / "absent", pair.key, "No such file"),
        (tmp_path, pair.key, "cannot"),
    ):
        with pytest.raises(UsageError, match=expected):
            Certificate(chain, key)


def test_a_key_that_is_gone_is_reported_once(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    certificate = Certificate(pair.certificate, pair.key)
    before, kept = certificate.context, pair.key.read_bytes()
    pair.key.unlink()
    for _ in range(3):
        certificate.refresh()
    assert certificate.context is before
    [record] = caplog.records
    assert f"{pair.key}: No such file or directory; the certificate in use stays" in record.getMessage()
    pair.key.write_bytes(kept)
    certificate.refresh()
    assert certificate.context is not before


def test_start_with_a_certificate_that_is_no_good(tmp_path: Path, pair: Pair) -> None:
    command = [sys.executable, "-m", "shardfs_cli", "serve", "--root", str(tmp_path / "root"), *tls(pair)]
    pair.key.write_text("")
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "cannot use" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
