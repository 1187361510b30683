from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest

from shardfs.prefetch.cursors import (
    CORES,
    FIRST_WINDOW,
    FRONT_WINDOW,
    MAX_CURSORS,
    MAX_LEGS,
    NEAR,
    TOLERANCE,
    Cursors,
)
from shardfs.prefetch.extents import Extents
from shardfs.prefetch.want import Want
from shardfs.tensors import Stretch

KB, MB = 1 << 10, 1 << 20
SIZE = 512 * MB
FAR = 64 * MB


def read(cursors: Cursors, reads: Iterable[tuple[int, int]], limit: int = NEAR) -> list[Want]:
    found = (cursors.read(offset, offset + size, limit) for offset, size in reads)
    return [want for want in found if want is not None]


def in_a_row(start: int, end: int, size: int = 128 * KB) -> list[tuple[int, int]]:
    return [(offset, size) for offset in range(start, end, size)]


def bytes_of(wants: list[Want]) -> int:
    return sum(end - start for want in wants for start, end in (*want.near, *want.far))


@pytest.mark.parametrize("size", [4 * KB, 128 * KB, MB])
def test_a_reader_is_followed_from_its_second_request_on(size: int) -> None:
    cursors = Cursors(SIZE)
    assert read(cursors, [(0, size)]) == []
    (want,) = read(cursors, [(size, size)])
    assert want.near == ((2 * size, 2 * size + FIRST_WINDOW),)
    assert want.distance == 0


def test_everything_behind_is_wanted_once_and_in_order() -> None:
    wants = read(Cursors(SIZE), in_a_row(0, 64 * MB))
    ranges = [extent for want in wants for extent in want.near]
    assert ranges[0][0] == 256 * KB
    assert all(end == start for (_, end), (start, _) in pairwise(ranges))
    assert 64 * MB + NEAR // 2 <= ranges[-1][1] <= 64 * MB + NEAR
    assert not any(want.far for want in wants)


def test_the_window_grows_to_what_the_way_takes() -> None:
    cursors = Cursors(SIZE)
    wants = read(cursors, in_a_row(MB, 128 * MB), FAR)
    reach = max(end for want in wants for _, end in (*want.near, *want.far))
    assert 128 * MB + FAR // 2 <= reach <= 128 * MB + FAR
    assert max(end for want in wants for _, end in want.near) <= 128 * MB + NEAR
    assert wants[0].far == ()
    assert wants[0].near[0][1] <= 3 * MB


def test_who_begins_at_the_front_of_what_is_far_gets_more_at_once() -> None:
    first, second, *_ = read(Cursors(SIZE), in_a_row(0, 4 * MB), FAR)
    assert bytes_of([first]) == FRONT_WINDOW
    assert second.far[-1][1] >= 2 * FRONT_WINDOW
    (here, *_) = read(Cursors(SIZE), in_a_row(0, MB))
    assert bytes_of([here]) == FIRST_WINDOW


def test_what_lies_before_all_tensors_is_no_reason_to_want_one() -> None:
    cursors = Cursors(SIZE)
    cursors.extents = Extents([Stretch("a", None, (), 600 * KB, 400 * MB)])
    wants = read(cursors, in_a_row(0, MB), FAR)  # the kernel reads on behind it
    assert max(end for want in wants for _, end in (*want.near, *want.far)) <= 2 * MB
    wants = read(cursors, in_a_row(MB, 3 * MB), FAR)  # and then a program does
    assert max(end for want in wants for _, end in (*want.near, *want.far)) >= FAR


def test_who_goes_on_from_the_front_into_the_second_tensor_reads_all() -> None:
    cursors = Cursors(SIZE)
    cursors.extents = Extents([Stretch(str(n), None, (), n * 16 * MB + KB, (n + 1) * 16 * MB + KB) for n in range(20)])
    wants = read(cursors, in_a_row(0, 17 * MB), FAR)
    assert max(end for want in wants for _, end in (*want.near, *want.far)) <= 33 * MB
    wants = read(cursors, in_a_row(17 * MB, 20 * MB), FAR)
    assert max(end for want in wants for _, end in (*want.near, *want.far)) >= 17 * MB + FAR


def test_nothing_is_wanted_behind_the_end() -> None:
    wants = read(Cursors(10 * MB + 5), in_a_row(0, 10 * MB))
    assert max(end for want in wants for _, end in want.near) == 10 * MB + 5


@pytest.mark.parametrize("size", [4 * KB, 128 * KB])
def test_requests_out_of_order_are_one_reader(size: int) -> None:
    choice = random.Random(1)
    reads = in_a_row(0, 32 * MB, size)
    for start in range(0, len(reads), 4):
        part = reads[start : start + 4]
        choice.shuffle(part)
        reads[start : start + 4] = part
    cursors = Cursors(SIZE)
    wants = read(cursors, reads)
    assert bytes_of(wants) >= 32 * MB - FIRST_WINDOW - TOLERANCE
    assert cursors.legs is not None
    assert len(cursors.legs) == 1


def test_threads_with_a_part_each_are_readers_of_their_own() -> None:
    parts = [in_a_row(n * 64 * MB, n * 64 * MB + 16 * MB) for n in range(MAX_CURSORS)]
    cursors = Cursors(SIZE)
    wants = read(cursors, [one for turn in zip(*parts, strict=True) for one in turn], FAR)
    assert len({id(want.reader) for want in wants}) == MAX_CURSORS
    assert bytes_of(wants) >= MAX_CURSORS * 16 * MB
    assert cursors.legs is not None  # in turns, by the megabyte
    assert [leg.start for leg in cursors.legs[: MAX_CURSORS + 1]] == [*(n * 64 * MB for n in range(MAX_CURSORS)), MB]
    assert len(cursors.legs) == MAX_CURSORS * 16


def test_readers_that_keep_all_cores_decoding_are_left_alone() -> None:
    parts = [in_a_row(n * 64 * MB, n * 64 * MB + 16 * MB) for n in range(MAX_CURSORS)]
    few = read(Cursors(SIZE), [one for turn in zip(*parts[:2], strict=True) for one in turn])
    assert bytes_of(few) >= 2 * 16 * MB
    if MAX_CURSORS > CORES:
        many = read(Cursors(SIZE), [one for turn in zip(*parts, strict=True) for one in turn])
        assert bytes_of(many) <= CORES * NEAR


@pytest.mark.parametrize("size", [4 * KB, 128 * KB, MB])
def test_reads_at_random_want_nothing(size: int) -> None:
    choice = random.Random(size)
    offsets = [choice.randrange(SIZE // 4096) * 4096 for _ in range(4000)]
    wants = read(Cursors(SIZE), [(offset, min(size, SIZE - offset)) for offset in offsets])
    assert bytes_of(wants) <= 4 * NEAR  # of the 16 to 4000 MB that were read


def test_a_far_seek_gives_up_the_reader_that_has_been_silent_longest() -> None:
    cursors = Cursors(SIZE)
    read(cursors, in_a_row(0, MB))
    first = cursors.active[0]
    for place in range(1, MAX_CURSORS):
        read(cursors, [(place * 32 * MB, 4 * KB)])
        assert cursors.dropped is None
    read(cursors, [(500 * MB, 4 * KB)])
    assert cursors.dropped is first


def test_reads_without_order_are_not_remembered() -> None:
    cursors = Cursors(SIZE * 100)
    read(cursors, [(n * 4 * MB, 4 * KB) for n in range(MAX_LEGS + 1)])
    assert cursors.legs is None
    assert bytes_of(read(cursors, in_a_row(0, 4 * MB))) > 0


def test_a_tensor_is_wanted_to_its_end_and_not_further() -> None:
    cursors = Cursors(SIZE)
    cursors.extents = Extents([Stretch("a", None, (), MB, 40 * MB), Stretch("b", None, (), 40 * MB, 300 * MB)])
    (want,) = read(cursors, [(MB, 4 * KB)], FAR)
    assert (want.near[0][0], want.far[-1][1]) == (MB + 4 * KB, 40 * MB)
    assert read(cursors, in_a_row(MB + 4 * KB, 38 * MB), FAR)[-1].far == ()
    wants = read(cursors, in_a_row(39 * MB + 4 * KB, 41 * MB), FAR)  # it goes on to the next one
    assert max(end for want in wants for _, end in (*want.near, *want.far)) > 90 * MB


def test_small_tensors_do_not_keep_a_reader_short() -> None:
    cursors = Cursors(SIZE)
    cursors.extents = Extents([Stretch(str(n), None, (), n * 64 * KB, (n + 1) * 64 * KB) for n in range(2000)])
    wants = read(cursors, in_a_row(0, 16 * MB))
    assert bytes_of(wants) >= 16 * MB


def test_who_reads_all_needs_no_guess() -> None:
    cursors = Cursors(SIZE)
    want = cursors.read_all(NEAR)
    assert want is not None
    assert want.near == ((0, NEAR),)
    assert read(cursors, [(0, NEAR // 2 + 1)])[0].near == ((NEAR, NEAR + NEAR // 2 + 1),)


def test_who_goes_on_after_others_does_so_in_the_order_too() -> None:
    cursors = Cursors(SIZE)
    read(cursors, [(0, 4 * KB), *in_a_row(100 * MB, 110 * MB), *in_a_row(4 * KB, MB + 4 * KB)])
    assert cursors.legs is not None
    assert [(leg.start, leg.end) for leg in cursors.legs] == [
        (0, 4 * KB),
        (100 * MB, 110 * MB),
        (4 * KB, MB + 4 * KB),
    ]
