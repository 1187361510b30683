from __future__ import annotations

from shardfs.prefetch.extents import MAX_STRETCHES, Extents, Spot
from shardfs.tensors import Stretch

MB = 1 << 20


def stretches(*extents: tuple[str, int, int]) -> Extents:
    return Extents([Stretch(name, None, (end - start,), start, end) for name, start, end in extents])


MODEL = stretches(("a", 8192, 5 * MB), ("b", 5 * MB, 9 * MB), ("c", 10 * MB, 11 * MB))


def test_a_reader_of_a_tensor_stops_at_its_end() -> None:
    assert MODEL.bound(8192, MB) == 5 * MB
    assert MODEL.bound(6 * MB, 7 * MB) == 9 * MB
    assert MODEL.bound(4 * MB, 6 * MB) == 9 * MB  # it went on once: the next one may be all it wants


def test_a_reader_that_has_just_come_into_a_tensor_may_stop_there() -> None:
    assert MODEL.bound(0, 4096) == 8192
    assert MODEL.bound(0, 12_000) == 8192
    assert MODEL.bound(0, 17_000) == 5 * MB  # it reads more than was before the tensor
    assert MODEL.bound(4 * MB, 6 * MB - 1) == 5 * MB


def test_what_a_kernel_reads_around_a_tensor_is_no_sign_that_more_is_wanted() -> None:
    model = stretches(*((str(n), n * 2 * MB, (n + 1) * 2 * MB) for n in range(1, 20)))
    begun, end = 10 * MB - 256 * 1024, 12 * MB
    assert model.bound(begun, end - MB) == end
    assert model.bound(begun, end + MB // 2) == end
    assert model.bound(begun, end + MB) == end + 2 * MB  # the next one, too
    assert model.bound(begun, end + 2 * MB + MB // 2) == end + 2 * MB
    assert model.bound(begun, end + 3 * MB) is None


def test_a_reader_of_the_file_does_not_stop() -> None:
    assert MODEL.bound(4 * MB, 10 * MB) is None
    assert MODEL.bound(0, 12 * MB) is None
    assert MODEL.bound(0, 6 * MB) is None  # from the front of the file, past what a kernel reads along


def test_the_first_page_of_a_tensor_is_where_it_begins() -> None:
    assert MODEL.begins(8192, 9000)
    assert MODEL.begins(8192 - 100, 9000)
    assert not MODEL.begins(8192 - 100, 8192)
    assert not MODEL.begins(0, 9000)
    assert not MODEL.begins(MB, 2 * MB)
    assert not MODEL.begins(10 * MB, 11 * MB)  # nothing of it is left
    assert not MODEL.begins(20 * MB, 21 * MB)


def test_places_move_with_their_tensor() -> None:
    moved = stretches(("b", 0, 4 * MB), ("a", 4 * MB, 9 * MB))
    spot = MODEL.spot(6 * MB)
    assert spot == Spot("b", MB)
    assert moved.offset(spot) == MB
    assert MODEL.spot(100) is None
    assert moved.offset(Spot("c", 0)) is None
    assert moved.offset(Spot("b", 5 * MB)) is None


def test_few_of_very_many_tensors_are_known() -> None:
    many = stretches(*((str(n), n, n + 1) for n in range(MAX_STRETCHES + 5)))
    assert many.spot(MAX_STRETCHES - 1) == Spot(str(MAX_STRETCHES - 1), 0)
    assert many.bound(MAX_STRETCHES, MAX_STRETCHES + 1) is None
