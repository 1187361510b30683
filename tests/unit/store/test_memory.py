from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest

from shardfs.store.memory import LEAST_IN_FLIGHT, PlaintextMemory


def test_least_recently_used_goes_first() -> None:
    memory = PlaintextMemory(30)
    for name in (b"a", b"b", b"c"):
        memory.put(name, bytes(10))
    assert memory.get(b"a") is not None
    memory.put(b"d", bytes(10))
    assert memory.get(b"b") is None
    assert memory.get(b"a") is not None
    assert memory.used_bytes == 30


def test_bytes_in_flight_count() -> None:
    memory = PlaintextMemory(30)
    memory.put(b"a", bytes(10))
    memory.put(b"b", bytes(10))
    with memory.reserve(15):
        assert memory.get(b"a") is None
        assert memory.used_bytes == 25
    assert memory.get(b"b") is not None
    assert memory.used_bytes == 10


def test_more_than_the_budget_is_not_kept() -> None:
    memory = PlaintextMemory(5)
    memory.put(b"a", bytes(6))
    assert memory.get(b"a") is None
    assert memory.used_bytes == 0


def test_who_wants_more_than_the_budget_waits_for_those_before() -> None:
    memory = PlaintextMemory(LEAST_IN_FLIGHT)
    begun, order = threading.Event(), []

    def second() -> None:
        begun.set()
        with memory.reserve(LEAST_IN_FLIGHT):
            order.append("second")

    thread = threading.Thread(target=second)
    with memory.reserve(1):
        thread.start()
        begun.wait(10)
        with memory.reserve(LEAST_IN_FLIGHT):  # of the same thread: its bases
            order.append("base")
        time.sleep(0.05)
        order.append("first")
    thread.join(10)
    assert order == ["base", "first", "second"]


def test_all_for_whom_there_is_room_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shardfs.store.memory.PATIENCE_S", 60)
    memory, together = PlaintextMemory(LEAST_IN_FLIGHT), threading.Barrier(3)

    def small() -> None:
        with memory.reserve(1):
            together.wait(10)

    threads = [threading.Thread(target=small) for _ in range(2)]
    with memory.reserve(LEAST_IN_FLIGHT):
        for thread in threads:
            thread.start()
        time.sleep(0.05)
    together.wait(10)
    for thread in threads:
        thread.join()


def test_it_tells_what_was_loaded_ahead_for_nothing() -> None:
    memory = PlaintextMemory(30)
    for name in (b"a", b"b", b"c"):
        memory.expect(name, 10)
        memory.put(name, bytes(10))
    assert not memory.has_room_ahead(1)  # the rest of the budget is for what is wanted now
    memory.get(b"b")
    memory.get(b"b")
    assert memory.ahead_bytes == (30, 10, 0, 20)
    memory.put(b"d", bytes(20))
    assert memory.ahead_bytes == (30, 10, 10, 10)
    memory.clear()
    assert memory.ahead_bytes == (30, 10, 20, 0)
    memory.expect(b"e", 10)
    memory.give_up(b"e")
    assert memory.ahead_bytes == (40, 10, 30, 0)
    assert memory.has_room_ahead(7)
    assert not memory.has_room_ahead(8)


def test_what_came_meanwhile_is_not_expected() -> None:
    memory = PlaintextMemory(100)
    memory.put(b"a", bytes(10))
    memory.expect(b"a", 10)
    assert memory.ahead_bytes.waiting == 0


def test_what_was_loaded_ahead_stays_longer_than_what_was_read() -> None:
    memory = PlaintextMemory(40)
    memory.expect(b"early", 10)
    memory.put(b"early", bytes(10))
    for number in range(4):
        memory.put(b"%d" % number, bytes(10))
    assert memory.holds(b"early")
    assert not memory.holds(b"0")
    memory.put(b"4", bytes(10))
    assert not memory.holds(b"early")  # a whole budget was loaded since


def test_what_nobody_uses_any_more_is_forgotten() -> None:
    memory = PlaintextMemory(30, idle_s=0.1)
    memory.put(b"a", bytes(10))
    deadline = time.monotonic() + 10
    while memory.used_bytes and time.monotonic() < deadline:
        time.sleep(0.02)
    assert memory.used_bytes == 0
    memory.put(b"b", bytes(10))  # and it goes on to be watched
    while memory.used_bytes and time.monotonic() < deadline:
        time.sleep(0.02)
    assert memory.used_bytes == 0


def test_what_somebody_reads_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    memory = PlaintextMemory(30, idle_s=60)
    memory.put(b"a", bytes(10))
    now += 40
    assert memory.get(b"a") is not None
    now += 40
    assert memory._idle_left_s() == 20
    now += 20
    assert memory._idle_left_s() == 0
    assert memory.get(b"a") is None


def test_the_watch_does_not_keep_it_alive() -> None:
    memory = PlaintextMemory(30, idle_s=60)
    memory.put(b"a", bytes(10))
    seen = weakref.ref(memory)
    del memory
    gc.collect()
    assert seen() is None


def test_what_was_lent_takes_room_from_what_is_kept_but_never_all_of_it() -> None:
    memory = PlaintextMemory(100)
    for number in range(10):
        memory.put(bytes([number]), bytes(10))
    memory.lend(30)
    assert memory.used_bytes == 70
    memory.lend(70)
    assert memory.used_bytes == 50
    memory.lend(-100)
    for number in range(10, 20):
        memory.put(bytes([number]), bytes(10))
    assert memory.used_bytes == 100
