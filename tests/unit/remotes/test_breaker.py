"""Remotes in trouble: left alone by everybody, asked again by one, and failing at once when waiting is of no use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from shardfs.errors import (
    PackNotFoundError,
    RemoteDeniedError,
    RemoteDownError,
    RemoteError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
)
from shardfs.remotes.breaker import Breaker, GuardedRemote
from shardfs.remotes.counters import Counters
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.registry import open_remote
from shardfs.remotes.retry import RetryingRemote
from tests.faults.badserver import answer, bad_server
from tests.unit.remotes.test_retry import COMMIT, PACK, Flaky, failing

AWAY = RemoteUnavailableError("away")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(30, Counters(), clock)


def fail(breaker: Breaker, times: int, error: RemoteError = AWAY) -> None:
    for _ in range(times):
        breaker.failed(error, breaker.enter())


def pause_s(breaker: Breaker) -> float:
    with pytest.raises(RemoteUnavailableError) as caught:
        breaker.enter()
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_a_single_failure_changes_nothing(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.available
    breaker.answered()
    fail(breaker, 2)
    assert breaker.available


def test_failures_in_a_row_earn_a_pause_that_grows_to_a_bound(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    assert not breaker.available
    pauses: list[float] = []
    while clock.now < 1020:
        pauses.append(pause_s(breaker))
        clock.now += pauses[-1]
        breaker.failed(AWAY, breaker.enter())
    assert pauses[0] <= 0.3
    assert 5 < max(pauses) <= 12


def test_one_request_finds_out_whether_it_is_back(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1
    begun = breaker.enter()
    assert pause_s(breaker) < 1
    breaker.answered()
    assert begun == clock.now
    breaker.enter()
    breaker.enter()


def test_a_probe_that_hangs_is_not_the_last_one(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 1
    breaker.enter()
    clock.now += 6
    breaker.enter()


def test_when_it_has_failed_for_longer_than_a_call_may_take_waiting_ends(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    assert pause_s(breaker) > 0
    clock.now += 31
    breaker.failed(AWAY, breaker.enter())
    with pytest.raises(RemoteDownError, match="away; it is not asked again for") as caught:
        breaker.enter()
    assert not caught.value.retryable


def test_requests_that_hung_for_long_count_from_their_beginning(breaker: Breaker, clock: Clock) -> None:
    begun = [breaker.enter() for _ in range(3)]
    clock.now += 31
    for one in begun:
        breaker.failed(RemoteTimeoutError("silent"), one)
    with pytest.raises(RemoteDownError):
        breaker.enter()


def test_a_server_that_says_when_to_come_back_is_left_alone_by_all(breaker: Breaker, clock: Clock) -> None:
    breaker.failed(RemoteUnavailableError("busy", 7.0), breaker.enter())
    assert not breaker.available
    assert pause_s(breaker) == 7.0
    breaker.answered()  # an older request ends well
    assert pause_s(breaker) == 7.0
    clock.now += 7
    breaker.enter()


def test_no_wish_is_granted_for_longer_than_a_minute(breaker: Breaker) -> None:
    breaker.failed(RemoteUnavailableError("busy", 3600.0), breaker.enter())
    assert pause_s(breaker) == 60.0


@pytest.mark.network
@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        ("7", 7.0),
        (formatdate(4102444800, usegmt=True), 3600.0),
        (formatdate(946684800, usegmt=True), 0.0),
        ("Mon, 99 Foo 2026", None),
        ("-5", None),
        ("", None),
        ("9" * 400, 3600.0),
    ],
)
def test_how_servers_say_when_to_come_back(wish: str, expected: float | None) -> None:
    with bad_server(answer("503 Busy", b"", f"Retry-After: {wish}")) as server:
        remote = HttpRemote(server.url)
        with pytest.raises(RemoteUnavailableError) as caught:
            remote.refs()
        assert caught.value.retry_after_s == expected
        remote.close()


def test_a_place_that_cannot_be_reached_still_says_so(breaker: Breaker) -> None:
    fail(breaker, 3, RemoteUnreachableError("refused"))
    with pytest.raises(RemoteUnreachableError):
        breaker.enter()


@pytest.mark.parametrize("error", [RemoteDeniedError("no"), PackNotFoundError("gone")])
def test_a_refusal_is_an_answer(error: Exception) -> None:
    remote = GuardedRemote(Flaky(failing(error)), Breaker(30, Counters()), lambda: pytest.fail("no trouble"))
    for _ in range(5):
        with pytest.raises(type(error)):
            remote.refs()


CALLS: list[Callable[[GuardedRemote], object]] = [
    lambda r: r.refs(),
    lambda r: r.list_packs(),
    lambda r: r.read_pack(PACK, 0, 3),
    lambda r: r.has([PACK]),
    lambda r: r.put_pack(Path("x"), PACK),
    lambda r: r.update_ref("refs/heads/main", None, COMMIT),
]


@pytest.mark.parametrize("call", CALLS)
def test_every_call_is_guarded(call: Callable[[GuardedRemote], object]) -> None:
    cuts: list[None] = []
    flaky, counters = Flaky(failing(AWAY)), Counters()
    remote = GuardedRemote(flaky, Breaker(30, counters), lambda: cuts.append(None))
    for _ in range(5):
        with pytest.raises(RemoteUnavailableError):
            call(remote)
    assert flaky.calls == len(cuts) == counters.attempts == counters.failures == 3
    assert counters.held_back == 2


def test_threads_wait_together_and_go_on_together() -> None:
    """16 threads meet a server that is away for a moment: few requests find that out, and all threads end well."""
    back_at = time.monotonic() + 1.0

    def behave(_: int) -> None:
        if time.monotonic() < back_at:
            raise RemoteUnavailableError("away")

    flaky = Flaky(behave)
    remote = RetryingRemote(GuardedRemote(flaky, Breaker(30, Counters()), lambda: None), 30)
    ended: list[bytes] = []
    threads = [threading.Thread(target=lambda: ended.append(remote.read_pack(PACK, 0, 3))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ended == [PACK[:3]] * 16
    assert flaky.calls < 16 + 16 + 12


@pytest.mark.network
def test_retry_after_is_for_the_whole_remote() -> None:
    with bad_server(answer("429 Slow down", b"", "Retry-After: 1"), answer("404 Nothing")) as server:
        remote = open_remote(server.url)
        errors: list[Exception] = []

        def ask() -> None:
            try:
                remote.read_pack(PACK, 0, 3)
            except Exception as error:  # noqa: BLE001 - looked at below
                errors.append(error)

        first = threading.Thread(target=ask)
        first.start()
        while remote.available:  # type: ignore[attr-defined]
            time.sleep(0.01)
        others = [threading.Thread(target=ask) for _ in range(8)]
        for thread in others:
            thread.start()
        time.sleep(0.3)
        assert len(server.requests) == 1
        for thread in (first, *others):
            thread.join()
        assert {type(error) for error in errors} == {PackNotFoundError}
        assert remote.available  # type: ignore[attr-defined]
        remote.close()
