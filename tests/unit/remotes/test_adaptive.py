"""How many requests are out at once, and who goes first."""

from __future__ import annotations

import threading
import time

import pytest

from shardfs.remotes import deadline
from shardfs.remotes.adaptive import FIRST, MOST, AdaptiveRemote, Window, in_background
from shardfs.remotes.breaker import Breaker
from shardfs.remotes.counters import Counters
from shardfs.remotes.registry import open_remote
from tests.faults.badserver import Answer, BadServer, answer
from tests.unit.remotes.test_breaker import Clock
from tests.unit.remotes.test_retry import PACK, Flaky


def simulate(seconds: float, bytes_per_s: float, each_per_s: float, clock: Clock, window: Window, c: Counters) -> None:
    """Callers without end on a link of so many bytes per second, of which one request gets so many at most."""
    end, size = clock.now + seconds, 1 << 20
    while clock.now < end:
        while c.in_flight < c.limit:
            window.enter()
        clock.now += size / min(bytes_per_s, each_per_s * c.in_flight)
        window.leave(size)


def test_the_limit_grows_while_that_brings_more() -> None:
    clock, counters = Clock(), Counters()
    window = Window(counters, clock=clock)
    assert counters.limit == FIRST
    simulate(20, 1e9, 4e6, clock, window, counters)
    assert counters.limit >= MOST - 1


def test_the_limit_does_not_grow_on_a_link_that_is_full() -> None:
    clock, counters = Clock(), Counters()
    window = Window(counters, clock=clock)
    simulate(60, 40e6, 40e6, clock, window, counters)
    assert FIRST <= counters.limit <= FIRST + 4


def test_trouble_halves_the_limit_once_a_second_and_calm_brings_it_back() -> None:
    clock, counters = Clock(), Counters()
    window = Window(counters, clock=clock)
    for _ in range(16):  # all that is out breaks at once
        window.trouble()
    assert counters.limit == FIRST // 2
    for _ in range(5):
        clock.now += 1.1
        window.trouble()
    assert counters.limit == 1
    simulate(12, 40e6, 4e6, clock, window, counters)
    assert FIRST <= counters.limit <= MOST


def test_nobody_is_let_out_above_the_limit() -> None:
    counters = Counters()
    remote = adaptive(counters, most=3)
    peak = 0
    guard = threading.Lock()
    out = 0

    def behave(_: int) -> None:
        nonlocal out, peak
        with guard:
            out += 1
            peak = max(peak, out)
        time.sleep(0.005)
        with guard:
            out -= 1

    remote._inner._behave = behave  # type: ignore[attr-defined]
    threads = [threading.Thread(target=lambda: [remote.read_pack(PACK, 0, 1) for _ in range(5)]) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert peak == 3
    assert (counters.in_flight, counters.waiting) == (0, 0)


def adaptive(counters: Counters, most: int = MOST) -> AdaptiveRemote:
    flaky = Flaky(lambda _: None)
    return AdaptiveRemote(flaky, Window(counters, most), Breaker(30, counters), counters)


def test_what_somebody_waits_for_goes_before_what_nobody_does() -> None:
    counters = Counters()
    window = Window(counters, 1)
    window.enter()
    order: list[str] = []

    def go(name: str, *, behind: bool) -> None:
        if behind:
            with in_background():
                window.enter()
        else:
            window.enter()
        order.append(name)
        window.leave(0)

    threads = []
    for number, (name, behind) in enumerate([("later 1", True), ("later 2", True), ("now 1", False), ("now 2", False)]):
        threads.append(threading.Thread(target=go, args=(name,), kwargs={"behind": behind}))
        threads[-1].start()
        while counters.waiting <= number:
            time.sleep(0.001)
    window.leave(0)
    for thread in threads:
        thread.join()
    assert order == ["now 1", "now 2", "later 1", "later 2"]


def test_waiting_for_a_turn_is_not_taken_from_the_time_of_the_call() -> None:
    counters = Counters()
    remote = adaptive(counters, most=1)
    left: list[float] = []
    remote._inner._behave = lambda _: left.append(deadline.remaining())  # type: ignore[attr-defined]
    remote._window.enter()

    def read() -> None:
        with deadline.limit(0.2):
            remote.read_pack(PACK, 0, 1)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.3)
    remote._window.leave(0)
    thread.join()
    assert 0.05 < left[0] <= 0.25


def test_questions_pass_the_window_by() -> None:
    remote = adaptive(Counters(), most=1)
    remote._window.enter()
    remote.refs()
    remote.list_packs()
    remote.has([PACK])


def test_a_failed_request_gives_its_turn_back() -> None:
    counters = Counters()
    remote = adaptive(counters, most=1)

    def behave(_: int) -> None:
        raise ZeroDivisionError

    remote._inner._behave = behave  # type: ignore[attr-defined]
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            remote.read_pack(PACK, 0, 1)
    assert counters.in_flight == 0


class Crowded(BadServer):
    """Answers four requests at a time and refuses the others."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0
        self._out = 0
        self._guard = threading.Lock()

    def answer_to(self, head: bytes) -> Answer:
        with self._guard:
            self._out += 1
            if self._out > 4:
                self._out -= 1
                self.refused += 1
                return answer("503 Busy")
        time.sleep(0.01)
        with self._guard:
            self._out -= 1
        return answer("206 Partial Content", b"x" * 10, "Content-Range: bytes 100-109/2000")


@pytest.mark.network
def test_a_server_that_takes_four_is_soon_asked_for_four() -> None:
    server = Crowded()
    remote = open_remote(server.url)
    got: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: got.extend(remote.read_pack(PACK, 100, 10) for _ in range(20)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [b"x" * 10] * 320
    assert server.refused < 160  # 16 at once that know nothing of each other are refused three times as often as not
    remote.close()
    server.close()
