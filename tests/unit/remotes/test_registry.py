"""Which URLs are remotes."""

from __future__ import annotations

import dataclasses
import socket
import time
from pathlib import Path

import pytest

from shardfs import config
from shardfs.errors import RemoteTimeoutError, RepositoryNotFoundError, UsageError
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.registry import check_url, open_remote
from tests.stores import MAIN, make_store


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://host/a", "http://host/a"),
        ("http://host:8750/a/b/", "http://host:8750/a/b"),
        ("https://user:secret@host/a", "https://host/a"),
        ("http://[::1]:80/a", "http://[::1]:80/a"),
        ("HTTP://Host/a", "http://host/a"),
        ("http://host", "http://host"),
        ("http://host/sp%20ace/größe", "http://host/sp%20ace/gr%C3%B6%C3%9Fe"),
        ("file:///srv/a%20b", "/srv/a b"),
        ("file://localhost/srv", "/srv"),
        ("/srv/models", "/srv/models"),
    ],
)
def test_good_urls(url: str, shown: str) -> None:
    check_url(url)
    remote = open_remote(url, name="backup")
    assert (remote.name, remote.url) == ("backup", shown)
    remote.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ftp://host/a",
        "ssh://host/a",
        "http://",
        "http:///path",
        "http://host:99999/a",
        "http://host:zero/a",
        "http://host:0/a",
        "http://host/a?b=c",
        "http://host/a#b",
        "http://host/a b",
        "http://host/a\r\nX-Header: b",
        "http://[::1/a",
        "file://host/srv",
        "file:///srv?x",
        "/srv/\0",
    ],
)
def test_bad_urls(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert str(caught.value).isprintable()
    with pytest.raises(UsageError):
        open_remote(url)


def test_secrets_are_in_no_message() -> None:
    with pytest.raises(UsageError) as caught:
        check_url("http://user:secret@host/a?b")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(HttpRemote("http://user:secret@host/a"))


def test_path_of_a_project_means_its_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, commits = make_store(tmp_path / "project" / ".shardfs", 1)
    store.close()
    monkeypatch.chdir(tmp_path)
    for url in ("project", "./project/.shardfs", str(tmp_path / "project"), (tmp_path / "project").as_uri()):
        remote = open_remote(url)
        assert remote.refs().refs == {MAIN: commits[-1]}
        remote.close()
    with pytest.raises(RepositoryNotFoundError):
        open_remote(str(tmp_path)).refs()


def test_deadline_is_a_setting() -> None:
    settings = dataclasses.replace(config.load(None), deadline_s=0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        remote = open_remote(f"http://127.0.0.1:{silent.getsockname()[1]}/a", settings=settings)
        started = time.monotonic()
        with pytest.raises(RemoteTimeoutError):
            remote.refs()
        assert time.monotonic() - started >= 0.4
        remote.close()
