from __future__ import annotations

import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from shardfs.errors import RemoteDeniedError, UsageError
from shardfs.formats.ids import CommitId
from shardfs.remotes.registry import check_url, open_remote
from tests.certificates import OPENSSL, make_certificate
from tests.s3server import S3Server, s3_server
from tests.stores import MAIN

COMMIT = CommitId(b"\xcc" * 32)

BAD = [
    "s3://",
    "s3:///prefix",
    "s3://bucket/a//b",
    "s3://bucket/a/../b",
    "s3://bucket/a b",
    "s3://bucket/x?endpoint=http://evil",
    "s3://bucket/x#y",
    "s3://KEY:SECRET@bucket/x",
    "s3://bucket:80/x",
    "s3://bucket/%00",
    "gs://[::1/x",
]


@pytest.mark.parametrize("url", BAD)
def test_bad_urls_are_refused_without_repeating_them(url: str) -> None:
    with pytest.raises(UsageError, match="must look like s3://bucket/prefix") as caught:
        check_url(url)
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("url", ["gs://x/y", "s3://ab/prefix", "az://x", f"s3://{'b' * 223}/y"])
def test_names_that_no_bucket_has(url: str) -> None:
    with pytest.raises(UsageError, match="can be no bucket or container; their names have 3 to 63") as caught:
        check_url(url)
    assert len(str(caught.value)) < 240


@pytest.mark.parametrize(
    ("given", "missing"),
    [("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")],
)
def test_one_key_of_two(monkeypatch: pytest.MonkeyPatch, given: str, missing: str) -> None:
    monkeypatch.setenv(given, "hidden-4711")
    monkeypatch.delenv(missing, raising=False)
    with pytest.raises(UsageError, match=f"^{given} is set and {missing} is not") as caught:
        check_url("s3://bucket/demo")
    assert "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "prefix"),
    [
        ("s3://bucket", ""),
        ("s3://bucket/", ""),
        ("S3://bucket/team/llm/", "team/llm/"),
        ("s3://bucket/gr%C3%B6%C3%9Fe", "größe/"),
        ("s3://bucket/a+b&c=d", "a+b&c=d/"),
    ],
)
def test_where_a_url_leads(server: S3Server, url: str, prefix: str) -> None:
    remote = open_remote(url)
    remote.update_ref(MAIN, None, COMMIT)
    assert f"{prefix}refs/0000000000000001" in server.objects
    assert remote.refs().refs == {MAIN: COMMIT}
    assert remote.url == f"s3://bucket/{prefix}".rstrip("/")


def test_keys_of_a_profile(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    config = tmp_path / "config"
    config.write_text(
        "[profile team]\naws_access_key_id = a\naws_secret_access_key = s\n"
        f"endpoint_url = http://127.0.0.1:{server.port}\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_PROFILE", "team")
    remote = open_remote("s3://bucket/demo")
    remote.update_ref(MAIN, None, COMMIT)
    assert "demo/refs/0000000000000001" in server.objects


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("AWS_ACCESS_KEY_ID", "key\n"),
        ("AWS_SECRET_ACCESS_KEY", "secret\n"),
        ("AWS_SESSION_TOKEN", "tökén"),
        ("AWS_REGION", "us\teast"),
        ("AWS_ENDPOINT_URL", "localhost:9000"),
        ("AWS_ENDPOINT_URL", "http://"),
        ("AWS_ENDPOINT_URL", "https://[store"),
        ("AWS_ENDPOINT_URL_S3", "https://store:99999"),
    ],
)
def test_what_no_request_can_carry(server: S3Server, monkeypatch: pytest.MonkeyPatch, key: str, value: str) -> None:
    monkeypatch.setenv(key, value)
    with pytest.raises(UsageError, match=key) as caught:
        open_remote("s3://bucket/demo").refs()
    assert value.strip() not in str(caught.value).replace(key, "")


def test_azure_needs_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    for key in [key for key in os.environ if key.startswith("AZURE_")]:
        monkeypatch.delenv(key)
    with pytest.raises(UsageError, match="az://models/demo: AZURE_STORAGE_ACCOUNT_NAME is not set"):
        check_url("az://models/demo")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "a2V5")
    check_url("az://models/demo")


def test_google_needs_a_file_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "none.json"))
    with pytest.raises(UsageError, match="gs://models/demo: what the environment says") as caught:
        check_url("gs://models/demo")
    assert "none.json" not in str(caught.value)


FORKER = """
import os, sys
from shardfs.errors import RemoteDeniedError
from shardfs.remotes.registry import open_remote
remote = open_remote("s3://bucket/demo")
if sys.argv[1] == "used":
    remote.refs()
if os.fork() == 0:
    for again in (remote, open_remote("s3://bucket/demo")):
        try:
            print(len(again.refs().refs), flush=True)
        except RemoteDeniedError as error:
            print(error, flush=True)
    os._exit(0)
assert os.wait()[1] == 0
print(len(remote.refs().refs))
"""


@pytest.mark.parametrize("use", ["used", "unused"])
def test_a_forked_process_says_that_it_cannot_go_on(server: S3Server, use: str) -> None:
    """Loaders of training data fork. A parent that only named the place leaves it usable."""
    open_remote("s3://bucket/demo").update_ref(MAIN, None, COMMIT)
    command = [sys.executable, "-c", FORKER, use]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    *child, parent = done.stdout.splitlines()
    assert parent == "1"
    if use == "unused":
        assert child == ["1", "1"]
    else:
        assert len(child) == 2
        assert all("start workers with 'spawn'" in line for line in child)


def test_without_the_package() -> None:
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from shardfs.remotes.registry import check_url\n"
        "try: check_url('s3://bucket/demo')\n"
        "except Exception as e: print(type(e).__name__, e)\n"
        "check_url('http://127.0.0.1/demo')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "UsageError remotes in object storage need a package more: pip install 'shardfs[s3]'\n"


def test_nothing_is_imported_before_it_is_needed() -> None:
    program = (
        "import sys, shardfs.remotes.registry as r\n"
        "r.check_url('http://127.0.0.1/demo')\n"
        "print('obstore' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
def test_https_with_a_certificate_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = make_certificate(tmp_path, "authority")
    pair = make_certificate(tmp_path, signed_by=authority)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pair.certificate, pair.key)
    with s3_server(tls) as server:
        server.use(monkeypatch)
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://localhost:{server.port}")
        with pytest.raises(RemoteDeniedError, match="no trusted TLS connection"):
            open_remote("s3://bucket/demo").update_ref(MAIN, None, COMMIT)
        monkeypatch.setenv("SHARDFS_CA_FILE", str(authority.certificate))
        remote = open_remote("s3://bucket/demo")
        remote.update_ref(MAIN, None, COMMIT)
        assert remote.refs().refs == {MAIN: COMMIT}


@pytest.mark.parametrize(
    "content", [None, b"no certificate", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]
)
def test_a_file_of_certificates_that_cannot_be_used(
    server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "ca.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SHARDFS_CA_FILE", str(path))
    with pytest.raises(UsageError, match=r"remote\.ca_file"):
        check_url("s3://bucket/demo")
