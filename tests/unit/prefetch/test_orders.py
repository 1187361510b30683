from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardfs.prefetch import orders as orders_module
from shardfs.prefetch.order import Order, Range
from shardfs.prefetch.orders import Orders

ORDER = Order(b"c" * 32, 100, (Range(50, 100), Range(0, 10)))


def test_what_is_kept_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "orders"
    assert Orders(folder, writable=True).find(b"a/model.bin") is None
    assert Orders(folder, writable=True).keep(b"a/model.bin", ORDER)
    assert Orders(folder, writable=False).find(b"a/model.bin") == ORDER
    assert Orders(folder, writable=False).find(b"model.bin") is None


def test_damage_is_no_order(tmp_path: Path) -> None:
    orders = Orders(tmp_path, writable=True)
    orders.keep(b"x", ORDER)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:cut])
        assert orders.find(b"x") is None
    file.unlink()
    file.mkdir()
    assert orders.find(b"x") is None
    assert not orders.keep(b"x", ORDER)
    assert list(tmp_path.iterdir()) == [file]


def test_a_store_that_may_not_be_written_is_not(tmp_path: Path) -> None:
    assert not Orders(tmp_path / "orders", writable=False).keep(b"x", ORDER)
    assert list(tmp_path.iterdir()) == []


def test_the_oldest_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orders_module, "MAX_RECORDS", 3)
    orders = Orders(tmp_path, writable=True)
    for number in range(5):
        orders.keep(b"%d" % number, ORDER)
        for file in tmp_path.iterdir():
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**9))
    assert [orders.find(b"%d" % n) is not None for n in range(5)] == [False, False, True, True, True]
