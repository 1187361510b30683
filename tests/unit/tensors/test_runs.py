"""Small tensors that follow each other, taken together."""

from __future__ import annotations

from shardfs.tensors import Stretch, runs


def _stretches(*sizes: int, dtype: str | None = "float32", start: int = 100) -> list[Stretch]:
    made = []
    for number, size in enumerate(sizes):
        made.append(Stretch(f"t{number}", dtype, (size // 4,), start, start + size))
        start += size
    return made


def test_small_neighbours_of_one_type_are_joined() -> None:
    assert runs(_stretches(400, 400, 800), 1000) == (Stretch("t0", "float32", (1600,), 100, 1700),)


def test_large_ones_stay_by_themselves_and_part_the_small() -> None:
    joined = runs(_stretches(400, 400, 4000, 400, 400), 1000)
    assert [(s.name, s.start, s.end) for s in joined] == [("t0", 100, 900), ("t2", 900, 4900), ("t3", 4900, 5700)]


def test_gaps_and_other_types_part_them() -> None:
    first, second = _stretches(400, 400), _stretches(400, dtype="bfloat16", start=900)
    third = _stretches(400, dtype="bfloat16", start=1301)
    assert runs([*first, *second, *third], 1000) == (Stretch("t0", "float32", (800,), 100, 900), *second, *third)


def test_one_small_tensor_keeps_its_shape() -> None:
    [alone] = _stretches(400)
    assert runs([alone], 1000) == (alone,)
    assert runs([], 1000) == ()
