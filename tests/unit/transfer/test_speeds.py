"""What is remembered of the speed of transfers, and what is not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from shardfs.remotes.counters import Counters
from shardfs.store.layout import Layout
from shardfs.transfer.speeds import Expectation, Speeds, expectation

URLS = {"origin": "https://models.example.org/demo", "lan": "http://10.0.0.5/demo"}
MIB = 1 << 20


@pytest.fixture
def speeds(tmp_path: Path) -> Speeds:
    return Speeds(Layout(tmp_path))


def transfer(speeds: Speeds, size: int, seconds: float, limit: int = 0, urls: dict[str, str] = URLS) -> None:
    """A transfer from origin, after one that was not watched."""
    opened: dict[str, Any] = {"origin": SimpleNamespace(counters=Counters())}
    flow = opened["origin"].counters.received
    flow.bytes, flow.seconds = 5 * MIB, 1000.0
    with speeds.remembered(urls, opened, limit):
        flow.bytes += size
        flow.seconds += seconds


def test_the_last_transfer_of_each_url_and_direction_counts(speeds: Speeds, tmp_path: Path) -> None:
    origin = URLS["origin"]
    assert speeds.get(origin, "received") is None
    transfer(speeds, 8 * MIB, 2.0)
    assert speeds.get(origin, "received") == 4 * MIB
    assert speeds.get(origin, "sent") is None
    assert speeds.get(URLS["lan"], "received") is None
    transfer(speeds, 9 * MIB, 3.0)
    assert speeds.get(origin, "received") == 3 * MIB
    assert (tmp_path / "speeds.json").stat().st_mode & 0o777 == 0o600
    transfer(speeds, 8 * MIB, 2.0, urls={"origin": "https://elsewhere.example.org/demo"})
    assert speeds.get(origin, "received") is None


def test_transfers_that_say_nothing_about_the_link(speeds: Speeds) -> None:
    transfer(speeds, 8 * MIB, 2.0)
    transfer(speeds, MIB - 1, 100.0)
    transfer(speeds, 8 * MIB, 8.0, limit=MIB)  # the limit was what it took
    with pytest.raises(ZeroDivisionError), speeds.remembered(URLS, {}, 0):
        raise ZeroDivisionError
    assert speeds.get(URLS["origin"], "received") == 4 * MIB
    transfer(speeds, 8 * MIB, 8.0, limit=2 * MIB)
    assert speeds.get(URLS["origin"], "received") == MIB


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b"\xff",
        b"[]",
        b'{"version": 2, "speeds": {"u": {"sent": 5}}}',
        b'{"version": 1, "speeds": 5}',
        b'{"version": 1, "speeds": {"u": 5}}',
        b'{"version": 1, "speeds": {"u": {"sent": 0}}}',
        b'{"version": 1, "speeds": {"u": {"sent": true}}}',
        b'{"version": 1, "speeds": {"u": {"sent": 1e300}}}',
        b'{"version": 1, "speeds": {"u": {"sent": 99999999999999999999}}}',
    ],
)
def test_a_damaged_file_knows_nothing_and_is_replaced(speeds: Speeds, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "speeds.json").write_bytes(data)
    assert speeds.get("u", "sent") is None
    transfer(speeds, 8 * MIB, 2.0)
    assert speeds.get(URLS["origin"], "received") == 4 * MIB


def test_a_speed_that_cannot_be_written_fails_no_transfer(tmp_path: Path) -> None:
    speeds = Speeds(Layout(tmp_path / "gone"))
    transfer(speeds, 8 * MIB, 2.0)
    assert speeds.get(URLS["origin"], "received") is None


def test_the_lower_of_speed_and_limit_counts() -> None:
    assert expectation(100, None, 0) is None
    assert expectation(100, 10, 0) == Expectation(10.0, 10, is_limit=False)
    assert expectation(100, 10, 50) == Expectation(10.0, 10, is_limit=False)
    assert expectation(100, 10, 5) == Expectation(20.0, 5, is_limit=True)
    assert expectation(100, None, 5) == Expectation(20.0, 5, is_limit=True)
