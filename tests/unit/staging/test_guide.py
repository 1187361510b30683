"""How the cuts of another version are followed, and given up where rows came or went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from shardfs.chunking import Cursor
from shardfs.formats.ids import ChunkId, chunk_id
from shardfs.formats.manifest import ChunkRef
from shardfs.staging.bases import FileBases
from shardfs.staging.guide import Guide

HEADER = 1000  # bytes before the tensor
SIZES = (300_000, 200_000, 400_000, 100_000)  # of the chunks of the tensor in the other version
OLD = [ChunkRef(ChunkId(chunk_id(b"%d" % size)), size) for size in SIZES]
BETWEEN = ChunkRef(ChunkId(chunk_id(b"between")), 900)


class Known:
    """What is known of the other version: its one tensor."""

    def __init__(self, chunks: Sequence[ChunkRef], *, doubtful: bool) -> None:
        self.doubtful = {HEADER} if doubtful else set[int]()
        self._chunks = tuple(chunks)

    def tensor(self, start: int) -> tuple[ChunkRef, ...]:
        assert start == HEADER
        return self._chunks

    def at(self, _: int) -> ChunkRef:
        return BETWEEN


def guide(size: int, *, chunks: Sequence[ChunkRef] = OLD, doubtful: bool = False) -> Guide:
    """For a file that is a header, a tensor of `size` bytes, and some bytes behind it."""
    cursor = Cursor(HEADER + size + 10, [(HEADER, HEADER + size)])
    known = cast("FileBases", cast("Any", Known(chunks, doubtful=doubtful)))
    return Guide(cursor, {HEADER: "float32"}, known)


def follow(
    guided: Guide, differs: Callable[[ChunkRef], bool] = lambda _: False
) -> list[tuple[int, str | None, ChunkRef | None]]:
    """Size, type and base of each chunk; `differs` tells which bases are no good."""
    found = []
    while not guided.cursor.finished:
        guided.enter()
        base = guided.base()
        if base is not None and guided.is_doubtful and differs(base):
            guided.give_up()
            continue
        dtype = guided.dtype
        found.append((guided.cursor.cut(memoryview(bytes(guided.cursor.reach))), dtype, base))
    return found


def test_a_tensor_takes_over_cuts_and_each_chunk_has_its_counterpart() -> None:
    assert follow(guide(sum(SIZES))) == [
        (HEADER, None, BETWEEN),
        *((chunk.size, "float32", chunk) for chunk in OLD),
        (10, None, BETWEEN),
    ]


def test_rows_behind_the_last_chunk_have_none() -> None:
    found = follow(guide(sum(SIZES) + 50_000, doubtful=True))
    assert found[1:5] == [(chunk.size, "float32", chunk) for chunk in OLD]
    assert found[5:-1] == [(50_000, "float32", None)]


def test_a_shorter_tensor_takes_over_what_fits() -> None:
    found = follow(guide(sum(SIZES[:3]) - 1, doubtful=True))
    assert [base for *_, base in found[1:-1]] == [OLD[0], OLD[1], None]
    assert sum(size for size, *_ in found) == HEADER + sum(SIZES[:3]) - 1 + 10


def test_rows_in_the_middle_make_one_chunk_longer_and_move_the_others() -> None:
    found = follow(guide(sum(SIZES) + 4096, doubtful=True), lambda base: base == OLD[1])
    assert [size for size, *_ in found[1:-1]] == [300_000, 204_096, 400_000, 100_000]
    assert [base for *_, base in found[1:-1]] == [OLD[0], None, OLD[2], OLD[3]]


def test_rows_that_went_make_one_chunk_shorter() -> None:
    found = follow(guide(sum(SIZES) - 4096, doubtful=True), lambda base: base == OLD[2])
    assert [size for size, *_ in found[1:-1]] == [300_000, 200_000, 395_904, 100_000]
    assert [base for *_, base in found[1:-1]] == [OLD[0], OLD[1], None, OLD[3]]


def test_after_a_second_difference_the_content_decides() -> None:
    found = follow(guide(sum(SIZES) + 4096, doubtful=True), lambda base: base in (OLD[0], OLD[2]))
    assert [base for *_, base in found[1:-1]][:2] == [None, OLD[1]]
    assert {base for *_, base in found[3:-1]} == {None}
    assert sum(size for size, *_ in found) == HEADER + sum(SIZES) + 4096 + 10


def test_more_rows_gone_than_the_chunk_had_leave_it_to_the_content() -> None:
    size = sum(SIZES) - 350_000
    found = follow(guide(size, doubtful=True), lambda base: base == OLD[0])
    assert {base for *_, base in found[1:-1]} == {None}
    assert sum(size for size, *_ in found) == HEADER + size + 10


def test_a_new_tensor_has_no_bases() -> None:
    assert {base for *_, base in follow(guide(700_000, chunks=()))[1:-1]} == {None}


def test_without_another_version_there_is_nothing_to_follow() -> None:
    guided = Guide(Cursor(HEADER + 700_000, [(HEADER, HEADER + 700_000)]), {HEADER: "float32"}, None)
    assert [(dtype, base) for _, dtype, base in follow(guided)][:2] == [(None, None), ("float32", None)]
