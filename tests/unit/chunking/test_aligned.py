from __future__ import annotations

import random

import pytest

from shardfs.chunking import LARGE_TENSOR, Cursor, FixedCutter, Segment, segments

KIB = 1 << 10
MIB = 1 << 20


def lengths(data: bytes, extents: list[tuple[int, int]]) -> list[tuple[int, int]]:
    cursor, view, out = Cursor(len(data), extents), memoryview(data), []
    while not cursor.finished:
        start = cursor.offset
        out.append((start, start + cursor.cut(view[start:])))
    return out


def test_large_tensors_and_gaps_are_segments() -> None:
    large = LARGE_TENSOR
    got = list(segments(10 * large, [(100, 100 + large), (3 * large, 4 * large), (4 * large, 6 * large)]))
    assert got == [
        Segment(0, 100, False),
        Segment(100, 100 + large, True),
        Segment(100 + large, 3 * large, False),
        Segment(3 * large, 4 * large, True),
        Segment(4 * large, 6 * large, True),
        Segment(6 * large, 10 * large, False),
    ]


def test_small_tensors_stay_in_the_gap() -> None:
    assert list(segments(1000, [(10, 500)])) == [Segment(0, 1000, False)]


@pytest.mark.parametrize("extents", [[(0, MIB + 1)], [(-5, MIB)], [(MIB, 0)]])
def test_impossible_extents_are_ignored(extents: list[tuple[int, int]]) -> None:
    assert list(segments(MIB, extents)) == [Segment(0, MIB, False)]


def test_overlapping_extents_keep_the_first() -> None:
    got = list(segments(MIB, [(0, 512 * KIB), (100 * KIB, MIB)]))
    assert got == [Segment(0, 512 * KIB, True), Segment(512 * KIB, MIB, False)]


def test_an_empty_file_is_finished_at_once() -> None:
    cursor = Cursor(0)
    assert cursor.finished
    assert cursor.reach == 0
    with pytest.raises(ValueError, match="needs 0 bytes"):
        cursor.cut(memoryview(b""))
    with pytest.raises(ValueError, match="finished"):
        cursor.cut_zeros()


def test_every_large_tensor_starts_and_ends_a_chunk() -> None:
    data = random.Random(1).randbytes(9 * MIB)
    extents = [(1234, 1234 + 3 * MIB), (5 * MIB, 5 * MIB + 65 * KIB), (6 * MIB, 9 * MIB - 7)]
    spans = lengths(data, extents)
    starts, ends = {s for s, _ in spans}, {e for _, e in spans}
    assert starts >= {s for s, _ in extents}
    assert ends >= {e for _, e in extents}


def test_equal_tensors_are_cut_alike_wherever_they_are() -> None:
    rng = random.Random(2)
    tensor = rng.randbytes(6 * MIB)
    one, two = b"header" + tensor, rng.randbytes(MIB + 3) + tensor + b"tail"
    a = [(s - 6, e - 6) for s, e in lengths(one, [(6, 6 + len(tensor))])[1:]]
    shift = MIB + 3
    spans = lengths(two, [(shift, shift + len(tensor))])
    b = [(s - shift, e - shift) for s, e in spans if shift <= s < shift + len(tensor)]
    assert a == b


def test_rows_inserted_in_a_tensor_cost_few_chunks() -> None:
    rng = random.Random(3)
    old = rng.randbytes(16 * MIB)
    new = old[: 4 * MIB] + rng.randbytes(3 * 384 * 4) + old[4 * MIB :]
    known = {old[s:e] for s, e in lengths(old, [(0, len(old))])}
    fresh = [e - s for s, e in lengths(new, [(0, len(new))]) if new[s:e] not in known]
    assert len(fresh) <= 3


def test_cuts_inside_tensors_are_multiples_of_eight() -> None:
    data = random.Random(4).randbytes(8 * MIB + 5)
    spans = lengths(data, [(5, len(data))])
    assert spans[0] == (0, 5)
    assert all((e - 5) % 8 == 0 for _, e in spans[1:-1])


def test_a_short_window_is_refused() -> None:
    cursor = Cursor(100, between=FixedCutter(10))
    assert cursor.reach == 10
    with pytest.raises(ValueError, match="needs 10 bytes, got 9"):
        cursor.cut(memoryview(bytes(9)))


def test_zeros_are_cut_as_bytes_are() -> None:
    data = bytes(11 * MIB + 3)
    extents = [(MIB, 8 * MIB)]
    cursor, spans = Cursor(len(data), extents), []
    while not cursor.finished:
        start = cursor.offset
        spans.append((start, start + cursor.cut_zeros()))
    assert spans == lengths(data, extents)
