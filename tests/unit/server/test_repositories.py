"""Repositories of a server, one of which is slow or cannot be opened."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.serving import serving
from tests.stores import make_store


def _ask(url: str, path: str) -> socket.socket:
    parts = urlsplit(url)
    asking = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=30)
    asking.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    return asking


def _once_somebody_reads(fifo: Path) -> int:
    """A descriptor to write to; until it is closed the reader waits."""
    end = time.monotonic() + 30
    while True:
        try:
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.005)


def test_one_that_is_slow_to_open_stops_no_other(tmp_path: Path) -> None:
    for name in ("slow", "demo"):
        make_store(tmp_path / name, 1)[0].close()
    listing = tmp_path / "slow/info/packs"
    content = listing.read_bytes()
    listing.unlink()
    os.mkfifo(listing)
    with serving(tmp_path) as server:
        waiting = [_ask(server.url, "/slow/info/refs") for _ in range(40)]  # more than the server has threads
        writer = _once_somebody_reads(listing)
        with _ask(server.url, "/demo/info/refs") as other:
            assert b"200 OK" in other.recv(100)
        os.write(writer, content)
        os.close(writer)
        for each in waiting:
            with each:
                assert b"200 OK" in each.recv(100)


def test_one_that_could_not_be_opened_is_tried_again(tmp_path: Path) -> None:
    make_store(tmp_path / "demo", 1)[0].close()
    settings = tmp_path / "demo/config.toml"
    content = settings.read_text()
    settings.write_text("format = 99\n")
    with serving(tmp_path) as server:
        for _ in range(2):
            with _ask(server.url, "/demo/info/refs") as asking:
                assert b" 400 " in asking.recv(100)
        settings.write_text(content)
        with _ask(server.url, "/demo/info/refs") as asking:
            assert b"200 OK" in asking.recv(100)
