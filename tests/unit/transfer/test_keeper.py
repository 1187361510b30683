"""Writing behind the readers: in order, bounded, and never waited for."""

from __future__ import annotations

import threading

from shardfs.transfer.keeper import Keeper, Parcel


class _Disk:
    """A disk that is as slow as the test wants."""

    def __init__(self) -> None:
        self.is_fast = threading.Event()
        self.written: list[int] = []
        self.told: list[int] = []

    def parcel(self, number: int, *, is_spare: bool = False, size: int = 10) -> Parcel:
        def write() -> None:
            self.is_fast.wait(10)
            self.written.append(number)

        return Parcel(size, write, lambda: is_spare, lambda: self.told.append(number))


def test_all_is_written_in_order_while_there_is_room() -> None:
    disk, keeper = _Disk(), Keeper(1000)
    for number in range(20):
        keeper.add(disk.parcel(number, is_spare=True))
    assert not keeper.settle(0.01)
    disk.is_fast.set()
    assert keeper.settle(10)
    assert disk.written == disk.told == list(range(20))
    assert keeper.dropped == 0


def test_what_everybody_has_is_dropped_when_the_disk_is_too_slow() -> None:
    disk, keeper = _Disk(), Keeper(25)
    for number in range(10):
        keeper.add(disk.parcel(number, is_spare=number != 4))
    disk.is_fast.set()
    assert keeper.settle(10)
    assert 4 in disk.written
    assert disk.written[-2:] == [8, 9]  # by then there was room again
    assert keeper.dropped == 10 * (10 - len(disk.written)) > 0
    assert disk.told == list(range(10))


def test_a_failure_stops_nothing() -> None:
    disk, keeper = _Disk(), Keeper(1000)
    disk.is_fast.set()

    def fail() -> None:
        raise MemoryError

    keeper.add(disk.parcel(0)._replace(write=fail))
    keeper.add(disk.parcel(1))
    assert keeper.settle(10)
    assert disk.written == [1]
    assert disk.told == [0, 1]


def test_the_end_waits_for_what_is_here_and_takes_no_more() -> None:
    disk, keeper = _Disk(), Keeper(1000)
    keeper.add(disk.parcel(0))
    threading.Timer(0.2, disk.is_fast.set).start()
    keeper.close(10)
    keeper.add(disk.parcel(1))
    assert disk.written == [0]
    assert disk.told == [0, 1]


def test_the_end_does_not_wait_for_ever() -> None:
    disk, keeper = _Disk(), Keeper(1000)
    for number in range(3):
        keeper.add(disk.parcel(number))
    threading.Timer(0.5, disk.is_fast.set).start()
    keeper.close(0.1)
    assert disk.written == [0]
    assert sorted(disk.told) == [0, 1, 2]
    assert keeper.dropped == 20
