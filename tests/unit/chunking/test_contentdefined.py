from __future__ import annotations

import random
import subprocess
import sys

import pytest

from shardfs.chunking import COMPILED, ContentDefinedCutter, Cursor
from shardfs.chunking.contentdefined import AVG_SIZE, MAX_SIZE, MIN_SIZE

MIB = 1 << 20


def cuts(data: bytes) -> list[bytes]:
    cursor, view, out = Cursor(len(data)), memoryview(data), []
    while not cursor.finished:
        start = cursor.offset
        out.append(data[start : start + cursor.cut(view[start:])])
    return out


def test_sizes_stay_within_limits_and_near_the_average() -> None:
    sizes = [len(c) for c in cuts(random.Random(1).randbytes(64 * MIB))]
    assert all(MIN_SIZE <= size <= MAX_SIZE for size in sizes[:-1])
    assert 0.75 * AVG_SIZE < sum(sizes) / len(sizes) < 1.75 * AVG_SIZE


@pytest.mark.parametrize("inserted", [1, 7, 4096, 3 * MIB + 5])
def test_insertion_at_the_front_reuses_more_than_95_percent(inserted: int) -> None:
    rng = random.Random(2)
    old = rng.randbytes(64 * MIB)
    known = set(cuts(old))
    reused = sum(len(c) for c in cuts(rng.randbytes(inserted) + old) if c in known)
    assert reused > 0.95 * len(old)


def test_change_in_the_middle_costs_few_chunks() -> None:
    old = bytearray(random.Random(3).randbytes(32 * MIB))
    known = set(cuts(bytes(old)))
    old[16 * MIB] ^= 1
    assert sum(c not in known for c in cuts(bytes(old))) <= 2


def test_zeros_give_the_longest_chunks() -> None:
    assert [len(c) for c in cuts(bytes(3 * MAX_SIZE + 10))] == [MAX_SIZE] * 3 + [10]


def test_cuts_are_the_documented_ones() -> None:
    # Other cuts would read back, but share no chunk with what is already stored.
    data = random.Random(4).randbytes(8 * MIB)
    assert [len(c) for c in cuts(data)] == GOLDEN


def test_alignment_rounds_down_all_but_the_last() -> None:
    data = random.Random(5).randbytes(8 * MIB + 3)
    plain, aligned = ContentDefinedCutter(), ContentDefinedCutter(alignment=8)
    window = memoryview(data)
    assert aligned.cut(window) == plain.cut(window) // 8 * 8
    assert aligned.cut(window[:11]) == 11


@pytest.mark.parametrize("sizes", [(0, 1024, 4096), (2048, 1024, 4096), (256, 8192, 4096), (1 << 21, 1 << 22, 1 << 23)])
def test_bad_sizes_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"size|range"):
        ContentDefinedCutter(*sizes)


def test_sizes_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="alignment"):
        ContentDefinedCutter(alignment=3)


def test_compiled_extension_is_there() -> None:
    assert COMPILED


PURE = """
import random, sys, warnings
sys.modules["pyfastcdc.cy"] = None
from shardfs.chunking import COMPILED, ContentDefinedCutter
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    cutter = ContentDefinedCutter(256, 1024, 4096)
data, sizes = memoryview(random.Random(6).randbytes(100_000)), []
while data:
    sizes.append(cutter.cut(data))
    data = data[sizes[-1]:]
print(COMPILED, [w.category.__name__ for w in caught], sizes)
"""


def test_without_the_extension_it_warns_and_cuts_alike() -> None:
    run = [sys.executable, "-W", "ignore", "-c", PURE]
    got = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    cutter, data, sizes = ContentDefinedCutter(256, 1024, 4096), random.Random(6).randbytes(100_000), []
    view = memoryview(data)
    while view:
        sizes.append(cutter.cut(view))
        view = view[sizes[-1] :]
    assert got.strip() == f"False ['RuntimeWarning'] {sizes}"


GOLDEN = [1718492, 1555456, 381941, 1572159, 505685, 706465, 1545577, 402833]
