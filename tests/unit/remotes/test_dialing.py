"""Connecting to hosts some of whose addresses do not answer."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from shardfs.remotes import cancelling, dialing

pytestmark = pytest.mark.network


class Silent:
    """An address whose SYNs are dropped: its queue of connections is full."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.address = self.listener.getsockname()
        self._filling = [socket.socket() for _ in range(4)]
        for one in self._filling:
            one.setblocking(False)
            one.connect_ex(self.address)

    def close(self) -> None:
        for one in (*self._filling, self.listener):
            one.close()


@pytest.fixture
def silent() -> Iterator[Silent]:
    found = Silent()
    yield found
    found.close()


def answers(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Have the name of the test mean these addresses, in this order."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]
    real = socket.getaddrinfo

    def look_up(host: Any, *args: Any, **keywords: Any) -> Any:
        return found if host == "models.test" else real(host, *args, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)


def connect(seconds: float = 10.0) -> socket.socket:
    return dialing.connect("models.test", 1, time.monotonic() + seconds, lambda _: None)


def test_an_address_that_keeps_silent_is_not_waited_for(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers(monkeypatch, silent.address, silent.address, listener.getsockname())
        with connect() as found:
            assert found.getpeername() == listener.getsockname()


def test_an_address_that_refuses_is_followed_by_the_next_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = closed.getsockname()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        answers(monkeypatch, gone, listener.getsockname())
        with connect() as found:
            assert found.getpeername() == listener.getsockname()


def test_when_all_refuse_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = closed.getsockname()
    answers(monkeypatch, gone, gone)
    with pytest.raises(ConnectionRefusedError):
        connect()


def test_when_all_keep_silent_the_time_limit_counts(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, silent.address, silent.address)
    with pytest.raises(TimeoutError):
        connect(0.4)


def test_ipv6_that_hangs_gives_way_to_ipv4() -> None:
    six = [(socket.AF_INET6, n) for n in range(3)]
    four = [(socket.AF_INET, n) for n in range(2)]
    assert dialing._in_turns([*six, *four]) == [six[0], four[0], six[1], four[1], six[2]]


def test_a_call_that_is_cancelled_connects_no_more(silent: Silent, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, silent.address)
    call = cancelling.Call()
    threading.Timer(0.1, call.cancel).start()
    with cancelling.within(call), pytest.raises(cancelling.CancelledError):
        connect(60)
