"""Counting what goes wrong."""

from __future__ import annotations

import pytest

from shardfs.server.attempts import Attempts


def test_too_many_wait_and_are_forgotten() -> None:
    now = [0.0]
    attempts = Attempts(3, 60, clock=lambda: now[0])
    for _ in range(3):
        assert attempts.wait_s("a") == 0
        attempts.add("a")
    assert attempts.wait_s("a") == pytest.approx(20)
    assert attempts.wait_s("b") == 0
    now[0] = 20
    assert attempts.wait_s("a") == pytest.approx(0)
    now[0] = 1000
    for _ in range(3):
        attempts.add("a")
    assert attempts.wait_s("a") == pytest.approx(20)


def test_memory_is_bounded() -> None:
    attempts = Attempts(1, 60, clock=lambda: 0.0)
    for number in range(10_000):
        attempts.add(str(number))
    assert len(attempts._counts) < 5000
    assert attempts.wait_s("9999") > 0
