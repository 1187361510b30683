"""Loaders that map a file and touch the beginnings of its tensors first."""

from __future__ import annotations

from shardfs.prefetch.cursors import NEAR, Cursors
from shardfs.prefetch.extents import Extents
from shardfs.prefetch.want import Want
from shardfs.tensors import Stretch

KB, MB = 1 << 10, 1 << 20
COUNT, TENSOR, HEADER = 100, 8 * MB, 16 * KB
FAR = 32 * MB


def model(sizes: list[int]) -> Cursors:
    stretches, at = [], HEADER
    for number, size in enumerate(sizes):
        stretches.append(Stretch(str(number), None, (), at, at + size))
        at += size
    cursors = Cursors(at)
    cursors.extents = Extents(stretches)
    return cursors


def touch(cursors: Cursors, number: int, limit: int = FAR) -> Want | None:
    """What a kernel asks for around the first page of a tensor."""
    assert cursors.extents is not None
    start = max(0, cursors.extents.start(number) // 4096 * 4096 - 256 * KB)
    return cursors.read(start, start + 512 * KB, limit)


def starts_of(cursors: Cursors, wants: list[Want | None]) -> list[int]:
    """Tensors whose beginnings are in what is wanted, in their order."""
    assert cursors.extents is not None
    ranges = [extent for want in wants if want for extent in (*want.near, *want.far)]
    return [number for start, end in ranges for number in cursors.extents.beginning_in(start, end)]


def test_a_walk_is_followed_from_its_third_tensor_on_further_each_time() -> None:
    cursors = model([TENSOR] * COUNT)
    assert [touch(cursors, number) for number in range(2)] == [None, None]
    assert starts_of(cursors, [touch(cursors, 2)]) == [3, 4, 5, 6, 7, 8]
    assert max(starts_of(cursors, [touch(cursors, number) for number in range(3, 20)])) == 19 + FAR // (2 * MB)


def test_each_beginning_is_fetched_once_and_nothing_but_beginnings() -> None:
    cursors = model([TENSOR] * COUNT)
    wants = [touch(cursors, number) for number in range(COUNT)]
    far = [extent for want in wants if want for extent in want.far]
    assert len(far) == len(set(far))
    assert set(starts_of(cursors, wants)) == set(range(3, COUNT))
    assert sum(end - start for start, end in far) <= COUNT * 512 * KB


def test_small_tensors_between_large_ones_are_no_end_of_a_walk() -> None:
    cursors = model([TENSOR, 4 * KB] * (COUNT // 2))
    wants = [touch(cursors, number) for number in range(0, COUNT, 2)]
    assert starts_of(cursors, wants)[-1] == COUNT - 1


def test_a_tensor_here_and_there_is_no_walk() -> None:
    cursors = model([TENSOR] * COUNT)
    assert [touch(cursors, number) for number in (50, 51, 7, 9, 11, 12, 90, 89, 88)] == [None] * 9


def test_a_walk_may_begin_anywhere_and_again() -> None:
    cursors = model([TENSOR] * COUNT)
    assert starts_of(cursors, [touch(cursors, number) for number in (60, 61, 62)])[0] == 63
    assert starts_of(cursors, [touch(cursors, number) for number in (20, 21, 22)])[0] == 23


def test_what_is_here_is_only_decoded() -> None:
    cursors = model([TENSOR] * COUNT)
    wants = [touch(cursors, number, NEAR) for number in range(20)]
    assert not any(want.far for want in wants if want)
    assert starts_of(cursors, wants) == list(range(3, 22))
