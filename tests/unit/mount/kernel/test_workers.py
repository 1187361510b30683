from __future__ import annotations

import threading

import pytest

from shardfs.mount.kernel import workers
from shardfs.mount.kernel.messages import Opcode
from shardfs.mount.kernel.request import Request
from shardfs.mount.kernel.workers import USUAL, Workers
from tests.mount.conftest import eventually


def request(unique: int) -> Request:
    return Request(Opcode.READ, unique, 1, 0, b"")


def test_a_request_that_waits_behind_those_that_wait_gets_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STUCK_S", 0.001)
    go_on = threading.Event()
    started: list[int] = []
    done: list[int] = []

    def serve(request: Request) -> None:
        started.append(request.unique)
        if request.unique <= USUAL:
            go_on.wait(10)
        done.append(request.unique)

    pool = Workers(serve)
    for unique in range(1, USUAL + 2):
        pool.put(request(unique))
    assert eventually(lambda: len(started) == USUAL, 5)
    assert pool.are_behind
    assert eventually(lambda: (pool.relieve(), USUAL + 1 in done)[1], 5)  # type: ignore[func-returns-value]
    assert done == [USUAL + 1]
    go_on.set()
    assert eventually(lambda: len(done) == USUAL + 1, 5)
    pool.stop()


def test_threads_that_work_get_no_company() -> None:
    names: set[str] = set()
    done = threading.Semaphore(0)

    def serve(_request: Request) -> None:
        names.add(str(threading.get_ident()))
        done.release()

    pool = Workers(serve)
    for unique in range(100):
        pool.put(request(unique))
        pool.relieve()
    for _ in range(100):
        assert done.acquire(timeout=5)
    assert len(names) <= USUAL
    pool.stop()


def test_threads_that_were_needed_for_a_while_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "STUCK_S", 0.001)
    monkeypatch.setattr(workers, "IDLE_S", 0.05)
    go_on = threading.Event()
    waiting: set[int] = set()

    def serve(_request: Request) -> None:
        waiting.add(threading.get_ident())
        go_on.wait(10)

    def alive() -> int:
        return sum(thread.ident in waiting for thread in threading.enumerate())

    pool = Workers(serve)
    for unique in range(10):
        pool.put(request(unique))
    assert eventually(lambda: (pool.relieve(), alive() == 10)[1], 10)  # type: ignore[func-returns-value]
    go_on.set()
    assert eventually(lambda: alive() == USUAL, 10)
    pool.put(request(10))
    pool.stop()
    assert eventually(lambda: alive() == 0, 10)
