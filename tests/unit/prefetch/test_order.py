from __future__ import annotations

import json
from collections.abc import Iterable

import pytest

from shardfs.errors import MalformedError
from shardfs.prefetch.cursors import NEAR, Cursors, Leg
from shardfs.prefetch.extents import Extents, Spot
from shardfs.prefetch.order import MAX_RANGES, Follower, Order, Range, order_of
from shardfs.prefetch.want import Want
from shardfs.tensors import Stretch

KB, MB = 1 << 10, 1 << 20
CONTENT = b"c" * 32
OLD = Extents([Stretch("a", None, (), 0, 10 * MB), Stretch("b", None, (), 10 * MB, 30 * MB)])
NEW = Extents([Stretch("b", None, (), MB, 21 * MB), Stretch("a", None, (), 21 * MB, 31 * MB)])


def legs(*extents: tuple[int, int], goes_on: bool = True) -> list[Leg]:
    found = []
    for start, end in extents:
        leg = Leg(start, end)
        leg.goes_on = goes_on
        found.append(leg)
    return found


def test_the_order_is_that_of_the_first_touch() -> None:
    order = order_of(legs((20, 40), (0, 10), (30, 60), (10, 15), (5, 12)), CONTENT, 100, None)
    assert order is not None
    assert [(r.start, r.end) for r in order.ranges] == [(20, 40), (0, 10), (40, 60), (10, 15)]
    assert order.covered == 55


def test_reads_at_random_have_no_order() -> None:
    assert order_of(legs((20, 40), (0, 10), goes_on=False), CONTENT, 100, None) is None
    assert order_of(legs(*((2 * n, 2 * n + 1) for n in range(MAX_RANGES + 1))), CONTENT, 10**6, None) is None


def test_a_record_gives_the_order_back() -> None:
    order = order_of(legs((11 * MB, 20 * MB), (0, 10 * MB)), CONTENT, 30 * MB, OLD)
    assert order is not None
    assert order.ranges[0] == Range(11 * MB, 20 * MB, Spot("b", MB), Spot("b", 10 * MB - 1))
    assert Order.from_bytes(order.to_bytes()) == order


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"type": "tree"},
        {"content": "xy"},
        {"size": -1},
        {"ranges": [[1, 2]]},
        {"ranges": [[2, 1, "", 0, "", 0]]},
        {"ranges": [[0, 1 << 70, "", 0, "", 0]]},
        {"ranges": [[0, 1, "", 0, "", 0]] * (MAX_RANGES + 1)},
        {"ranges": 5},
    ],
)
def test_what_is_no_record_is_refused(change: dict[str, object]) -> None:
    good = json.loads(Order(CONTENT, 10, (Range(0, 1),)).to_bytes())
    with pytest.raises(MalformedError):
        Order.from_bytes(json.dumps({**good, **change}).encode())
    with pytest.raises(MalformedError):
        Order.from_bytes(b"[" * 100_000)


def test_ranges_move_with_their_tensors() -> None:
    order = order_of(legs((0, 10 * MB), (12 * MB, 30 * MB)), CONTENT, 30 * MB, OLD)
    assert order is not None
    assert order.in_file(b"other", 31 * MB, NEW) == [(21 * MB, 31 * MB), (3 * MB, 21 * MB)]
    assert order.in_file(b"other", 20 * MB, None) == [(0, 10 * MB), (12 * MB, 20 * MB)]
    assert order.in_file(CONTENT, 30 * MB, NEW) == [(0, 10 * MB), (12 * MB, 30 * MB)]


def follow(follower: Follower, reads: Iterable[tuple[int, int]], limit: int = NEAR) -> list[Want]:
    found = (follower.read(offset, offset + size, limit) for offset, size in reads)
    return [want for want in found if want is not None]


def in_a_row(start: int, end: int) -> list[tuple[int, int]]:
    return [(offset, 128 * KB) for offset in range(start, end, 128 * KB)]


BACK_AND_FORTH = [(40 * MB, 44 * MB), (0, 8 * MB), (20 * MB, 30 * MB)]


def test_what_comes_next_is_wanted_where_a_guess_would_be_wrong() -> None:
    follower = Follower(BACK_AND_FORTH)
    wants = follow(follower, in_a_row(40 * MB, 44 * MB))
    assert wants[0].near == ((40 * MB + 384 * KB, 44 * MB), (0, 384 * KB))
    ((start, end),) = wants[1].near
    assert start == 384 * KB
    assert 2 * MB < end <= NEAR
    assert len(wants) == 2
    follow(follower, [*in_a_row(0, 8 * MB), *in_a_row(20 * MB, 30 * MB)])
    assert follower.asked_bytes == follower.used_bytes == 22 * MB - 384 * KB  # three reads until it is followed


def test_a_remote_is_asked_for_more() -> None:
    follower = Follower(BACK_AND_FORTH)
    wants = follow(follower, in_a_row(40 * MB, 41 * MB), limit=64 * MB)
    assert wants[0].near == ((40 * MB + 384 * KB, 44 * MB), (0, 384 * KB))
    assert wants[0].far == ((384 * KB, 4 * MB + 384 * KB),)
    follow(follower, [*in_a_row(41 * MB, 44 * MB), *in_a_row(0, 8 * MB), *in_a_row(20 * MB, 30 * MB)], limit=64 * MB)
    assert follower.asked_bytes == follower.used_bytes == 22 * MB - 384 * KB  # each byte once


def test_few_reads_elsewhere_do_not_end_it_and_many_do() -> None:
    follower = Follower(BACK_AND_FORTH)
    follows = []
    for reads in (in_a_row(40 * MB, 41 * MB), [(60 * MB, 1), (20 * MB, 1), (61 * MB, 1)], [(41 * MB, 128 * KB)]):
        follow(follower, reads)
        follows.append(follower.follows)
    assert follows == [True, False, True]
    follow(follower, in_a_row(60 * MB, 61 * MB))
    assert follower.is_over


def test_another_reader_is_not_taken_for_the_recorded_one() -> None:
    follower = Follower(BACK_AND_FORTH)
    assert follow(follower, in_a_row(20 * MB, 30 * MB)) == []
    assert follower.is_over
    assert Follower([]).is_over


def test_the_order_of_cursors_is_followed() -> None:
    cursors = Cursors(64 * MB)
    reads = [one for start, end in BACK_AND_FORTH for one in in_a_row(start, end)]
    for offset, size in reads:
        cursors.read(offset, offset + size, NEAR)
    order = order_of(cursors.legs or [], CONTENT, 64 * MB, None)
    assert order is not None
    assert order.in_file(CONTENT, 64 * MB, None) == BACK_AND_FORTH
