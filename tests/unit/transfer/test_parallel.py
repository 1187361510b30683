"""Work in several threads, results in order."""

from __future__ import annotations

import threading

import pytest

from shardfs.transfer.parallel import in_order


def test_results_come_in_order_from_several_threads() -> None:
    meeting = threading.Barrier(4)

    def work(item: int) -> int:
        if item < 4:
            meeting.wait(20)  # only four at once come further
        return item * item

    assert list(in_order(work, range(100), threads=4, ahead=8)) == [n * n for n in range(100)]


def test_no_more_is_begun_than_allowed() -> None:
    items, begun = [5, 5, 5, 5, 50, 5, 5], list[int]()
    results = in_order(begun.append, items, threads=2, ahead=10, size=int)
    for taken in range(1, len(items) + 1):
        next(results)
        waiting = sum(begun) - sum(items[:taken])
        assert waiting <= 10 or waiting == 50, "an item that is too large goes alone"
    assert sorted(begun) == sorted(items)


def test_first_error_is_raised_where_its_result_would_be() -> None:
    results = in_order(lambda n: 1 // (n - 2), range(5), threads=2, ahead=5)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_threads_end_when_nobody_takes_more() -> None:
    def running() -> int:
        return sum(thread.name == "shardfs-parallel" for thread in threading.enumerate())

    before = running()
    results = in_order(abs, range(1000), threads=3, ahead=3)
    next(results)
    results.close()
    for thread in threading.enumerate():
        if thread.name == "shardfs-parallel":
            thread.join(20)
    assert running() <= before


def test_work_is_done_where_the_system_allows_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert list(in_order(abs, range(-3, 3), threads=2, ahead=2)) == [3, 2, 1, 0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda n: 1 // n, range(3), threads=2, ahead=2))
