"""Orders of reads: records that come back whole, and followers that want what was recorded and nothing else."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from shardfs.errors import MalformedError
from shardfs.prefetch.cursors import NEAR, Cursors, Leg
from shardfs.prefetch.extents import Extents
from shardfs.prefetch.order import Follower, Order, order_of
from shardfs.tensors import Stretch

KB, MB = 1 << 10, 1 << 20
SIZE = 64 * MB

extents = st.tuples(st.integers(0, SIZE - 1), st.integers(1, 8 * MB)).map(lambda p: (p[0], min(SIZE, p[0] + p[1])))
reads = st.lists(st.tuples(st.integers(0, SIZE // (4 * KB) - 1), st.sampled_from([4 * KB, 128 * KB, MB])), max_size=200)


def legs(parts: list[tuple[int, int]]) -> list[Leg]:
    found = [Leg(start, end) for start, end in parts]
    for leg in found:
        leg.goes_on = True
    return found


@given(st.lists(extents, max_size=30))
def test_ranges_are_disjoint_and_cover_what_was_read(parts: list[tuple[int, int]]) -> None:
    order = order_of(legs([(start // MB, end // MB + 1) for start, end in parts]), b"c", SIZE, None)
    assert order is not None
    covered = [number for r in order.ranges for number in range(r.start, r.end)]
    first_touch = dict.fromkeys(number for start, end in parts for number in range(start // MB, end // MB + 1))
    assert covered == list(first_touch)


@given(st.lists(extents, max_size=30), st.lists(st.integers(1, SIZE - 1), max_size=10, unique=True))
def test_a_record_comes_back(parts: list[tuple[int, int]], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), SIZE]
    names = Extents([Stretch(str(n), None, (), a, b) for n, (a, b) in enumerate(pairwise(edges))])
    order = order_of(legs(parts), b"c" * 32, SIZE, names)
    assert order is not None
    assert Order.from_bytes(order.to_bytes()) == order
    whole = order.in_file(b"c" * 32, SIZE, None)
    assert order.in_file(b"other", SIZE, names) == whole


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_an_order_or_refused(data: bytes) -> None:
    with suppress(MalformedError):
        Order.from_bytes(data)


@given(st.lists(extents, min_size=1, max_size=10), reads, st.sampled_from([NEAR, 32 * MB]))
def test_a_follower_wants_only_what_was_recorded_and_each_byte_once(
    parts: list[tuple[int, int]], elsewhere: list[tuple[int, int]], limit: int
) -> None:
    order = order_of(legs(parts), b"c", SIZE, None)
    assert order is not None
    ranges = order.in_file(b"c", SIZE, None)
    follower = Follower(ranges)
    recorded = [
        (offset, min(offset + 128 * KB, end)) for start, end in ranges for offset in range(start, end, 128 * KB)
    ]
    others = [(page * 4 * KB, page * 4 * KB + size) for page, size in elsewhere]
    near: list[tuple[int, int]] = []
    for number, one in enumerate(recorded):
        for start, stop in (one, *others[number : number + 1]):
            if (want := follower.read(start, stop, limit)) is not None:
                near += want.near
                assert all(any(a <= x and y <= b for a, b in ranges) for x, y in (*want.near, *want.far))
    assert all(b <= x or y <= a for n, (a, b) in enumerate(near) for x, y in near[:n])
    assert follower.used_bytes <= follower.asked_bytes <= sum(end - start for start, end in ranges)


@given(reads)
def test_cursors_want_bytes_of_the_file_ahead_of_a_reader(given_reads: list[tuple[int, int]]) -> None:
    cursors = Cursors(SIZE)
    for page, size in given_reads:
        offset = page * 4 * KB
        want = cursors.read(offset, min(offset + size, SIZE), NEAR)
        for start, end in want.near if want is not None else ():
            assert offset < start < end <= min(SIZE, offset + size + NEAR + MB)
    assert cursors.legs is not None
    assert len(cursors.legs) <= len(given_reads)
