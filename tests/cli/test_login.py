"""Tokens at the command line: kept where nobody sees them, shown to the right server, and printed nowhere."""

from __future__ import annotations

import base64
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.remotes import credentials_file
from tests.certificates import OPENSSL, make_certificate
from tests.cli import schema
from tests.cli.conftest import Shell
from tests.faults.badserver import BadServer
from tests.serving import shardfs_serve

pytestmark = pytest.mark.network

SECRET = "sesame-4711"
PAIR = base64.b64encode(f"ada:{SECRET}".encode()).decode()


class Guarded(BadServer):
    """A server of one empty repository that lets those in who show the secret."""

    def answer_to(self, head: bytes) -> bytes:
        if head.startswith(b"GET /info/"):  # no repository can be at the root, so nothing is asked there
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        good = f"Bearer {SECRET}".encode() in head or f"Basic {PAIR}".encode() in head
        if not good:
            body = b'{"error": "this needs a token"}'
            return b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        body = b'{"version": 1, "head": "refs/heads/main", "refs": {}}'
        if b"/info/packs" in head:
            body = b'{"version": 1, "packs": []}'
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


class Open(BadServer):
    """A server of one repository that knows nothing of tokens."""

    def answer_to(self, head: bytes) -> bytes:
        if not head.startswith(b"GET /repo/"):
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        body = b'{"version": 1, "head": "refs/heads/main", "refs": {}}'
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@pytest.fixture
def server() -> Iterator[Guarded]:
    found = Guarded()
    yield found
    found.close()


def test_login_tries_the_token_and_keeps_it(project: Shell, server: Guarded) -> None:
    project("remote", "add", "origin", server.url)
    told = project("fetch", status=14).err
    assert f"shardfs login {server.url}" in told
    assert "origin" in told
    refused = project("login", server.url, stdin=b"wrong\n", status=14)
    assert "does not take this token" in refused.err
    assert not credentials_file.path().exists()
    result = project("login", server.url, "--json", stdin=SECRET.encode() + b"\n")
    assert result.json == {"url": server.url, "tried": True, "needed": True}
    assert schema.problems(schema.load()["login"], result.json) == []
    project("fetch")
    gone = project("logout", server.url, "--json")
    assert schema.problems(schema.load()["logout"], gone.json) == []
    project("fetch", status=14)
    project("logout", server.url, status=1)


def test_login_to_a_whole_server_is_tried_below_its_root(shell: Shell, server: Guarded) -> None:
    root = server.url.removesuffix("/repo")
    shell("login", root, stdin=b"wrong\n", status=14)
    assert shell("login", root, "--json", stdin=SECRET.encode()).json["tried"] is True
    assert shell("clone", server.url, "copy").status == 0


def test_login_where_everybody_may_read_claims_nothing(shell: Shell) -> None:
    server = Open()
    try:
        told = shell("login", server.url, stdin=SECRET.encode()).out
        assert "it lets everybody read, with a token or without" in told
        assert "logged in" not in told
        result = shell("login", server.url, "--json", stdin=SECRET.encode()).json
        assert result == {"url": server.url, "tried": False, "needed": False}
        assert schema.problems(schema.load()["login"], result) == []
        elsewhere = server.url.removesuffix("/repo")
        result = shell("login", elsewhere, "--json", stdin=SECRET.encode()).json
        assert (result["tried"], result["needed"]) == (False, None)
        assert "could not be tried" in shell("login", elsewhere, stdin=SECRET.encode()).out
    finally:
        server.close()


def test_login_with_a_helper_keeps_no_token(project: Shell, server: Guarded) -> None:
    project("login", server.url, "--helper", f"echo {SECRET}")
    assert "helper" in credentials_file.path().read_text()
    project("remote", "add", "origin", server.url)
    project("fetch")


def test_login_keeps_nothing_that_could_not_be_tried(project: Shell, server: Guarded) -> None:
    failed = project("login", server.url, "--helper", "false", status=14)
    assert "failed with status 1" in failed.err
    unsent = project("login", "http://models.example.org/team", stdin=SECRET.encode(), status=2)
    assert "--plain-http" in unsent.err
    assert not credentials_file.path().exists()


@pytest.mark.skipif(OPENSSL is None, reason="openssl is not installed")
def test_login_to_a_server_that_nobody_vouches_for_keeps_nothing(project: Shell, tmp_path: Path) -> None:
    pair = make_certificate(tmp_path)
    root = tmp_path / "root"
    with shardfs_serve(root, "--tls-cert", str(pair.certificate), "--tls-key", str(pair.key)) as served:
        refused = project("login", served.url, stdin=SECRET.encode(), status=14)
    assert "certificate is not trusted" in refused.err
    assert not credentials_file.path().exists()


def test_login_without_a_token_or_with_one_in_the_url(project: Shell, server: Guarded) -> None:
    project("login", server.url, stdin=b"\n", status=2)
    project("login", server.url.replace("://", f"://ada:{SECRET}@"), stdin=b"x\n", status=2)
    project("login", "/srv/models", stdin=b"x\n", status=2)
    assert not credentials_file.path().exists()


def test_a_secret_is_printed_and_written_nowhere_else(
    project: Shell, server: Guarded, tmp_path: Path, private_home: Path
) -> None:
    """All that a session prints and writes, searched for the password that was in the URL it was given."""
    url = server.url.replace("://", f"://ada:{SECRET}@")
    said = []

    def run(*args: str, status: int | None = 0, **environment: str) -> None:
        if "--debug" not in args and not environment:
            result = project(*args, status=status)
            said.append(result.out + result.err)
            return
        running = project.start(*args, env=os.environ | environment)
        said.append(b"".join(running.communicate(timeout=60)).decode())
        assert status is None or running.returncode == status, said[-1]

    run("remote", "add", "origin", url)
    run("remote", "list")
    run("-vv", "fetch", "--debug")
    run("-vv", "push", "--debug", status=None)
    run("config", "list")
    run("stats", "--json")
    run("-vv", "clone", url, str(tmp_path / "copy"))
    run("clone", f"http://ada:{SECRET}@127.0.0.1", status=2)
    run("doctor", "--bundle", str(tmp_path / "bundle.tgz"), status=None)
    run("mount", str(tmp_path / "models"), "--remote", url, "--print-fstab", status=None)
    run("mount", str(tmp_path / "models"), "--remote", url, "--print-systemd", status=None)
    server.close()
    run("-vv", "fetch", "--debug", status=14)
    run("doctor", "--bundle", str(tmp_path / "second.tgz"), status=None, SHARDFS_TOKEN=SECRET)
    run("fetch", "--debug", status=14, SHARDFS_TOKEN=SECRET)
    assert SECRET not in "".join(said)
    assert PAIR not in "".join(said)
    for bundle in ("bundle.tgz", "second.tgz"):
        with tarfile.open(tmp_path / bundle) as archive:
            found = [file.read() for member in archive if (file := archive.extractfile(member)) is not None]
        assert found
        assert not any(SECRET.encode() in content or PAIR.encode() in content for content in found)
    holders = [
        path
        for folder in (project.folder, tmp_path / "copy", private_home)
        for path in folder.rglob("*")
        if path.is_file() and (SECRET.encode() in path.read_bytes() or PAIR.encode() in path.read_bytes())
    ]
    assert holders == [credentials_file.path()]


@pytest.mark.fuse
@pytest.mark.skipif(shutil.which("fusermount3") is None, reason="fuse3 is not installed")
def test_a_mount_shows_no_secret(project: Shell, server: Guarded, point: Path) -> None:
    url = server.url.replace("://", f"://ada:{SECRET}@")
    project.process("mount", str(point), "--remote", url)
    try:
        texts = [Path("/proc/self/mountinfo").read_bytes()]
        for process in Path("/proc").glob("[0-9]*"):
            try:
                texts.append((process / "cmdline").read_bytes())
                if str(point).encode() in texts[-1]:
                    texts.append((process / "environ").read_bytes())
            except OSError:  # it has ended
                continue
        texts += [(point / ".shardfs" / name).read_bytes() for name in ("stats.json", "config.json")]
        assert server.url.encode() in b"".join(texts)
        assert SECRET.encode() not in b"".join(texts)
        assert PAIR.encode() not in b"".join(texts)
        texts = [path.read_bytes() for path in Path(os.environ["XDG_STATE_HOME"]).rglob("*") if path.is_file()]
        assert SECRET.encode() not in b"".join(texts)
    finally:
        project.process("umount", str(point))
