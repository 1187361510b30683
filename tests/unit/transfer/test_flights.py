from __future__ import annotations

import threading

import pytest

from shardfs.errors import ChunkNotFoundError, RemoteTimeoutError
from shardfs.transfer.flights import Flights

KEY = bytes(32)


def _followers(flights: Flights, count: int, results: list[object]) -> list[threading.Thread]:
    def follow() -> None:
        try:
            results.append(flights.run(KEY, lambda: b"own", 10))
        except ChunkNotFoundError as error:
            results.append(error)

    threads = [threading.Thread(target=follow) for _ in range(count)]
    for thread in threads:
        thread.start()
    while flights.waits < count:
        pass
    return threads


@pytest.mark.parametrize("fails", [False, True])
def test_one_runs_and_all_get_its_outcome(fails: bool) -> None:
    flights, results = Flights(), list[object]()
    error = ChunkNotFoundError("none")

    def work() -> bytes:
        threads.extend(_followers(flights, 4, results))
        if fails:
            raise error
        return b"shared"

    threads: list[threading.Thread] = []
    if fails:
        with pytest.raises(ChunkNotFoundError):
            flights.run(KEY, work, 10)
    else:
        assert flights.run(KEY, work, 10) == b"shared"
    for thread in threads:
        thread.join()
    assert results == [error if fails else b"shared"] * 4


def test_an_interrupted_fetch_is_run_again_by_who_waited() -> None:
    flights, results = Flights(), list[object]()
    threads: list[threading.Thread] = []

    def work() -> bytes:
        threads.extend(_followers(flights, 1, results))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flights.run(KEY, work, 10)
    threads[0].join()
    assert results == [b"own"]


def test_waiting_ends() -> None:
    flights = Flights()
    outcome: list[BaseException] = []

    def wait() -> None:
        try:
            flights.run(KEY, lambda: b"", 0.01)
        except RemoteTimeoutError as error:
            outcome.append(error)

    def work() -> bytes:
        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
        return b"late"

    assert flights.run(KEY, work, 10) == b"late"
    assert len(outcome) == 1


def test_a_passed_deadline_is_not_waited_for_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    flights = Flights()
    runs: list[int] = []

    def work() -> bytes:
        runs.append(1)
        raise RemoteTimeoutError("silent")

    for _ in range(3):
        with pytest.raises(RemoteTimeoutError, match="silent"):
            flights.run(KEY, work, 10)
    assert len(runs) == 1
    monkeypatch.setattr("shardfs.transfer.flights.REMEMBERED_S", -1.0)
    other = bytes([1]) * 32
    for _ in range(2):
        with pytest.raises(RemoteTimeoutError):
            flights.run(other, work, 10)
    assert flights.run(other, lambda: b"there again", 10) == b"there again"
    assert len(runs) == 3


def test_other_failures_are_tried_again() -> None:
    flights = Flights()
    runs: list[int] = []

    def work() -> bytes:
        runs.append(1)
        raise ChunkNotFoundError

    for _ in range(2):
        with pytest.raises(ChunkNotFoundError):
            flights.run(KEY, work, 10)
    assert len(runs) == 2
