"""Requests: a bounded number at once, what is waited for first."""

from __future__ import annotations

import threading

from shardfs.transfer.couriers import MAX_AHEAD, MAX_IN_FLIGHT, Couriers, Job


class _Gate:
    """Jobs that wait until the test lets them go, and tell in which order they ran."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.open = threading.Event()
        self.order: list[object] = []
        self.dropped: list[object] = []

    def job(self, name: object, owner: object = None) -> Job:
        def work() -> None:
            self.order.append(name)
            self.begun.release()
            self.open.wait(10)

        return Job(work, lambda: self.dropped.append(name), owner)

    def wait(self, count: int) -> None:
        for _ in range(count):
            assert self.begun.acquire(timeout=10)


def test_a_bounded_number_runs_at_once_and_what_is_waited_for_has_room() -> None:
    gate, couriers = _Gate(), Couriers()
    for number in range(40):
        couriers.send_ahead(gate.job(number), distance=number)
    gate.wait(MAX_AHEAD)
    assert not gate.begun.acquire(timeout=0.05)
    for number in range(40):
        couriers.send(gate.job(f"wanted {number}"))
    gate.wait(MAX_IN_FLIGHT - MAX_AHEAD)
    assert not gate.begun.acquire(timeout=0.05)
    assert couriers.peak == MAX_IN_FLIGHT
    gate.open.set()
    gate.wait(80 - MAX_IN_FLIGHT)
    assert len(set(gate.order)) == 80
    assert couriers.peak == MAX_IN_FLIGHT


def _blocked() -> tuple[_Gate, Couriers]:
    """Couriers that have no thread to spare until the gate opens."""
    gate, couriers = _Gate(), Couriers()
    for number in range(MAX_IN_FLIGHT):
        couriers.send(gate.job(("first", number)))
    gate.wait(MAX_IN_FLIGHT)
    gate.order.clear()
    return gate, couriers


def test_what_somebody_waits_for_overtakes_and_runs_once() -> None:
    gate, couriers = _blocked()
    jobs = [gate.job(number) for number in range(3)]
    for job, distance in zip(jobs, (5, 7, 3), strict=True):
        couriers.send_ahead(job, distance)
    couriers.send(jobs[1])
    gate.open.set()
    gate.wait(3)
    assert gate.order[0] == 1
    assert sorted(map(str, gate.order)) == ["0", "1", "2"]


def test_what_was_sent_ahead_can_be_dropped_unless_somebody_waits_for_it() -> None:
    gate, couriers = _blocked()
    jobs = {name: gate.job(name, owner) for name, owner in (("a", "me"), ("b", "me"), ("c", "you"))}
    for job in jobs.values():
        couriers.send_ahead(job, 0)
    couriers.send(jobs["b"])
    couriers.cancel("me")
    assert gate.dropped == ["a"]
    gate.open.set()
    gate.wait(2)
    assert sorted(map(str, gate.order)) == ["b", "c"]
