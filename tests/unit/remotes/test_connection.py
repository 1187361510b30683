"""Connections that are kept: which of them is used next."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.remotes.connection import Connection, Pool
from shardfs.remotes.timedsocket import Timeouts
from tests.serving import Server, serving

pytestmark = pytest.mark.network


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as found:
        yield found


def idle(server: Server, ages_s: list[float]) -> tuple[Pool, list[Connection]]:
    """A pool of connections that were given back so many seconds ago, the oldest first."""
    host, port = server.url.removeprefix("http://").split(":")
    pool = Pool(host, int(port), None, Timeouts())
    connections = [pool.take(fresh=True) for _ in ages_s]
    for connection, age_s in zip(connections, ages_s, strict=True):
        connection.putrequest("GET", "/nothing")
        connection.endheaders()
        with connection.answer() as response:
            assert isinstance(response, http.client.HTTPResponse)
            response.read()
        pool.give(connection)
        connection.idle_since -= age_s
    return pool, connections


def close(pool: Pool, connections: list[Connection]) -> None:
    pool.close()
    for connection in connections:
        connection.close()


def test_connections_in_use_take_turns(server: Server) -> None:
    pool, connections = idle(server, [5, 4, 0.0, 0.0])
    assert [pool.take(), pool.take()] == connections[2:]
    close(pool, connections)


def test_when_none_was_used_just_now_the_last_one_is_used_again(server: Server) -> None:
    pool, connections = idle(server, [5, 4, 3])
    assert [pool.take(), pool.take()] == [connections[2], connections[1]]
    close(pool, connections)
