"""Thousands of requests that are wrong: never a fault of the server, a hang, or something that stays behind."""

from __future__ import annotations

import os
import random
import re
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.formats.ids import chunk_id
from tests.prometheus import parse
from tests.serving import Server, shardfs_serve
from tests.stores import make_store
from tests.unit.server.byhand import ask
from tests.unit.server.malformed import request

pytestmark = pytest.mark.network

COUNT = int(os.environ.get("MALFORMED", "1000"))
STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    store, _ = make_store(tmp_path / "demo")
    store.close()
    with shardfs_serve(tmp_path, "--head-timeout", "0.5", "--slow-after", "0.5", "--max-rate", "0") as server:
        yield server


def answers(server: Server, seed: int) -> list[int]:
    """What one request gets, sent in pieces or at once, with the client staying or leaving."""
    chance = random.Random(seed)
    parts = urlsplit(server.url)
    data = request(chance) + (request(chance) if chance.random() < 0.2 else b"")
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as client:
        try:
            while data:
                size = chance.choice((len(data), len(data), 1 + chance.randrange(len(data))))
                client.sendall(data[:size])
                data = data[size:]
            if chance.random() < 0.1:
                return []
            if chance.random() < 0.2:
                client.shutdown(socket.SHUT_WR)
            answer = client.recv(65536)  # nothing when the server has enough of waiting for the rest
            client.shutdown(socket.SHUT_WR)
            while piece := client.recv(65536):
                answer += piece
        except TimeoutError:
            raise
        except OSError:
            return []
    assert b"Traceback" not in answer
    assert b"format = 1" not in answer
    return [int(status) for status in STATUS.findall(answer)]


def told(server: Server, name: str) -> float:
    return parse(ask(server.url, "GET", "/metrics").body.decode())[name].samples[()]


def test_requests_that_are_wrong(server: Server) -> None:
    with ThreadPoolExecutor(48) as threads:
        warm = list(threads.map(lambda seed: answers(server, seed), range(COUNT, COUNT + COUNT // 5)))
        descriptors, memory = told(server, "process_open_fds"), told(server, "process_resident_memory_bytes")
        found = list(threads.map(lambda seed: answers(server, seed), range(COUNT)))
    statuses = Counter(status for each in (*warm, *found) for status in each)
    assert [status for status in statuses if status >= 500] == [], statuses
    assert {200, 400, 404, 405} <= set(statuses)  # they get as far as that
    assert ask(server.url, "PUT", f"/demo/blocks/{chunk_id(b'x').hex()}", b"x").status == 201
    for _ in range(400):
        if told(server, "shardfs_server_connections") == 1:
            break
    assert told(server, "shardfs_server_requests_in_progress") == 1  # this question itself
    assert told(server, "process_open_fds") <= descriptors + 20
    assert told(server, "process_resident_memory_bytes") <= memory + (48 << 20)
