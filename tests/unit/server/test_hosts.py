from __future__ import annotations

import http.client
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.server.hosts import OwnNames
from tests.serving import shardfs_serve
from tests.stores import make_store


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost.:8750",
        "demo.localhost:80",
        "127.0.0.1:8750",
        "10.1.2.3",
        "[::1]:8750",
        "[::1]",
        "",
        socket.gethostname(),
        "models.example.org:8750",
    ],
)
def test_own_names(host: str) -> None:
    assert OwnNames(["models.example.org"]).has(host)


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8750", "notlocalhost", "[evil]", "0x7f.1"],
)
def test_other_names(host: str) -> None:
    assert not OwnNames(["models.example.org"]).has(host)


def _ask(url: str, path: str, host: str, **headers: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", path, headers={"Host": host, **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_page_whose_name_points_here_reads_nothing(tmp_path: Path) -> None:
    make_store(tmp_path / "demo", 1)[0].close()
    with shardfs_serve(tmp_path, "--host-name", "models.example.org") as server:
        for path in ("/demo/info/refs", "/metrics"):
            status, said = _ask(server.url, path, "evil.example:8750")
            assert status == 421
            assert b"evil.example" in said
            assert b"--host-name" in said
            assert _ask(server.url, path, "models.example.org")[0] == 200
            assert _ask(server.url, path, "localhost")[0] == 200
    with shardfs_serve(tmp_path, "--listen", "0.0.0.0:0") as server:
        url = server.url.replace("0.0.0.0", "127.0.0.1")
        assert _ask(url, "/demo/info/refs", "evil.example")[0] == 200
