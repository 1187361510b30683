from __future__ import annotations

import pytest

from shardfs.chunking import Cursor, FixedCutter


def test_cuts_every_size_bytes() -> None:
    data = memoryview(bytes(25))
    cursor = Cursor(25, inside=FixedCutter(10), between=FixedCutter(10))
    sizes = []
    while not cursor.finished:
        sizes.append(cursor.cut(data[cursor.offset :]))
    assert sizes == [10, 10, 5]


def test_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        FixedCutter(0)
