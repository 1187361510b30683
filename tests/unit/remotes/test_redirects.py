"""Redirects: which are followed, and what goes along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from shardfs.errors import RemoteDeniedError, RemoteError, RemoteProtocolError
from shardfs.formats.ids import PackId
from shardfs.remotes import connection, redirects
from shardfs.remotes.address import address
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.redirects import resolve
from tests.faults.badserver import Answer, BadServer, answer, bad_server

PACK = PackId(b"\5" * 32)
MAIN = "refs/heads/main"
REFS = answer("200 OK", json.dumps({"version": 1, "head": MAIN, "refs": {}}).encode())
RANGE = answer("206 Partial Content", b"x" * 10, "Content-Range: bytes 100-109/2000")


def redirect(location: str, status: str = "302 Found") -> bytes:
    return answer(status, b"", f"Location: {location}")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def servers(stack: ExitStack, *answers: Answer) -> list[BadServer]:
    return [stack.enter_context(bad_server(one)) for one in answers]


def with_login(server: BadServer) -> HttpRemote:
    return HttpRemote(server.url.replace("://", "://ada:sesame@"))


@pytest.mark.network
@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See", "307 Temporary", "308 Permanent"])
def test_a_signed_address_elsewhere_is_asked_without_our_secret(stack: ExitStack, status: str) -> None:
    home, store = servers(stack, b"", RANGE)
    home._answers = [redirect(store.url + "/x/y?sig=a%2Fb%3D&e=1", status)]
    remote = with_login(home)
    for _ in range(2):
        assert remote.read_pack(PACK, 100, 10) == b"x" * 10
    assert all(b"Authorization: Basic" in head for head in home.requests)
    assert len(home.requests) == 2
    for head in store.requests:
        assert head.startswith(b"GET /repo/x/y?sig=a%2Fb%3D&e=1 HTTP/1.1\r\n")
        assert b"Authorization" not in head
        assert b"Range: bytes=100-109" in head
    remote.close()


@pytest.mark.network
def test_another_path_of_the_same_server_gets_the_secret(stack: ExitStack) -> None:
    (home,) = servers(stack, redirect("/other/refs"))
    home._answers.append(REFS)
    remote = with_login(home)
    assert remote.refs().head == MAIN
    assert home.requests[1].startswith(b"GET /other/refs ")
    assert b"Authorization: Basic" in home.requests[1]
    remote.close()


@pytest.mark.network
def test_three_redirects_and_no_more(stack: ExitStack) -> None:
    (home,) = servers(stack, redirect("/a"))
    home._answers = [redirect("/a"), redirect("/b"), redirect("/c"), REFS]
    remote = HttpRemote(home.url)
    assert remote.refs().head == MAIN
    home._answers, home._given = [redirect("/again")], 0
    home.requests.clear()
    with pytest.raises(RemoteProtocolError, match="redirects to '/again'"):
        remote.refs()
    assert len(home.requests) == 1 + redirects.MAX
    remote.close()


@pytest.mark.network
def test_only_get_is_followed(stack: ExitStack) -> None:
    home, other = servers(stack, b"", REFS)
    home._answers = [redirect(other.url)]
    remote = HttpRemote(home.url)
    with pytest.raises(RemoteProtocolError, match="redirects"):
        remote.has([PACK])
    with pytest.raises(RemoteProtocolError, match="redirects"):
        remote.update_ref(MAIN, None, None)
    assert other.requests == []
    remote.close()


@pytest.mark.network
def test_a_public_server_cannot_have_us_ask_machines_inside(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other end of every connection of a test is inside; the first one is said not to be."""
    home, inside = servers(stack, b"", REFS)
    home._answers = [redirect(inside.url)]
    port = address(home.url).port
    real = connection.Connection._judge

    def judge(self: connection.Connection, peer: str) -> None:
        real(self, "8.8.8.8" if self.port == port else peer)

    monkeypatch.setattr(connection.Connection, "_judge", judge)
    remote = HttpRemote(home.url)
    with pytest.raises(RemoteDeniedError, match="a machine inside"):
        remote.refs()
    assert inside.requests == []
    remote.close()


@pytest.mark.parametrize(
    ("base", "location", "place", "target"),
    [
        ("https://h/a", "https://s3.example/b?x=1", "https://s3.example/b", "/b?x=1"),
        ("https://h:8443/a", "/b", "https://h:8443/b", "/b"),
        ("https://h/a/", "b?", "https://h/a/b", "/a/b"),
        ("http://h/a", "https://h/a", "https://h/a", "/a"),
        ("http://h/a", "//cdn/x#part", "http://cdn/x", "/x"),
        ("http://h/a", "http://h/größe", "http://h/gr%C3%B6%C3%9Fe", "/gr%C3%B6%C3%9Fe"),
    ],
)
def test_where_a_redirect_leads(base: str, location: str, place: str, target: str) -> None:
    found = resolve(address(base), base.partition("//")[2][len(base.split("/")[2]) :], location)
    assert found is not None
    assert (str(found[0]), found[1]) == (place, target)


@pytest.mark.parametrize(
    "location",
    [
        None,
        "",
        "http://h/a",
        "ftp://h/a",
        "file:///etc/passwd",
        "https://user:secret@h/a",
        "https://h:0/a",
        "https://h/../a b",
        "https://h/a\r\nX: y",
        "https://[::1/a",
        "https://h/" + "a" * 9000,
        "javascript:alert(1)",
    ],
)
def test_what_is_not_followed(location: str | None) -> None:
    assert resolve(address("https://h/a"), "/a", location) is None


@pytest.mark.network
def test_an_error_shows_no_secret_of_a_redirect(stack: ExitStack) -> None:
    (home,) = servers(stack, redirect("http://user:sesame@127.0.0.1:1/x?signature=sesame"))
    remote = HttpRemote(home.url)
    with pytest.raises(RemoteError) as caught:
        remote.refs()
    assert str(caught.value).isprintable()
    assert "//127.0.0.1:1/x" in str(caught.value)
    assert "sesame" not in str(caught.value)
    remote.close()
