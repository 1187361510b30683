"""Second requests: made when the first is late, never many, and the loser is called back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from shardfs.errors import PackNotFoundError, RemoteError, RemoteUnavailableError
from shardfs.formats.ids import PackId
from shardfs.remotes.counters import Counters
from shardfs.remotes.hedge import SMALL, HedgedRemote
from shardfs.remotes.http import HttpRemote
from tests.faults.badserver import Answer, BadServer, answer

pytestmark = pytest.mark.network

PACK = PackId(b"\5" * 32)
GOOD = answer("206 Partial Content", b"x" * 10, "Content-Range: bytes 100-109/2000")


class Chosen(BadServer):
    """Answers well, but for requests that a test says: by their number from 0, counted from `begin`."""

    def __init__(self) -> None:
        super().__init__(GOOD)
        self.odd: dict[int, Answer] = {}
        self._first = 0
        self._guard = threading.Lock()
        self._count = 0

    def begin(self, odd: dict[int, Answer]) -> None:
        self.odd, self._first = odd, self._count

    def answer_to(self, head: bytes) -> Answer:
        del head
        with self._guard:
            number, self._count = self._count - self._first, self._count + 1
        return self.odd.get(number, GOOD)


@pytest.fixture
def server() -> Chosen:
    return Chosen()


def prepared(server: Chosen) -> tuple[HedgedRemote, Counters]:
    """A remote that knows how long answers take."""
    counters = Counters()
    remote = HedgedRemote(HttpRemote(server.url), counters)
    for _ in range(48):
        assert read(remote) == b"x" * 10
    assert counters.hedges_won == 0
    return remote, counters


def read(remote: HedgedRemote) -> bytes:
    return remote.read_pack(PACK, 100, 10)


def late(seconds: float, data: bytes = GOOD) -> Callable[[socket.socket], None]:
    def send(client: socket.socket) -> None:
        time.sleep(seconds)
        client.sendall(data)

    return send


def test_an_answer_that_does_not_come_is_had_from_another_connection(server: Chosen) -> None:
    remote, counters = prepared(server)
    before = counters.hedged
    server.begin({0: server.silence})
    started = time.monotonic()
    assert read(remote) == b"x" * 10
    assert time.monotonic() - started < 5
    assert counters.hedges_won == 1
    assert counters.hedged == before + 1
    remote.close()
    server.close()


def test_the_first_answer_counts_and_the_second_is_called_back(server: Chosen) -> None:
    remote, counters = prepared(server)
    ended = threading.Event()

    def hang(client: socket.socket) -> None:
        client.recv(1)  # until the client hangs up
        ended.set()

    server.begin({0: late(0.2), 1: hang})
    assert read(remote) == b"x" * 10
    assert counters.hedges_won == 0
    assert ended.wait(5)
    remote.close()
    server.close()


def test_an_error_of_the_first_waits_for_the_second(server: Chosen) -> None:
    remote, counters = prepared(server)
    server.begin({0: late(0.2, answer("500 Oops")), 1: late(0.4)})
    assert read(remote) == b"x" * 10
    assert counters.hedges_won == 1
    server.begin({0: late(0.2, answer("500 Oops")), 1: late(0.3, answer("503 Oops"))})
    with pytest.raises(RemoteUnavailableError, match="500"):
        read(remote)
    remote.close()
    server.close()


def test_errors_that_come_at_once_come_through(server: Chosen) -> None:
    remote, _ = prepared(server)
    server.begin({0: answer("404 Nothing")})
    with pytest.raises(PackNotFoundError):
        read(remote)
    remote.close()
    server.close()


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_pack_that_goes_away_between_both_requests_is_no_fault(server: Chosen) -> None:
    remote, counters = prepared(server)
    before = counters.hedged
    server.begin({0: late(0.3), 1: answer("404 Nothing")})
    assert read(remote) == b"x" * 10
    assert counters.hedged == before + 1
    server.begin({0: late(0.2, answer("404 Nothing")), 1: late(0.3)})
    with pytest.raises(PackNotFoundError):
        read(remote)
    remote.close()
    server.close()


def test_a_server_that_is_slow_as_a_whole_gets_few_more_requests(server: Chosen) -> None:
    remote, counters = prepared(server)
    server.begin(dict.fromkeys(range(1000), late(0.03)))
    threads = [threading.Thread(target=lambda: [read(remote) for _ in range(15)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.hedged <= 0.05 * (48 + 120) + 2
    remote.close()
    server.close()


def test_long_ranges_are_asked_for_once(server: Chosen) -> None:
    remote, counters = prepared(server)
    before = counters.hedged
    server.begin({0: late(0.2, answer("416 No"))})
    with pytest.raises(RemoteError):
        remote.read_pack(PACK, 0, SMALL + 1)
    assert counters.hedged == before
    remote.close()
    server.close()
