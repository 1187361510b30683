"""Which tensors of two files are the same, and which of their chunks hold the same places."""

from __future__ import annotations

from shardfs.diff.tensors import Match, large, matches, same_places
from shardfs.formats.ids import chunk_id
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.tensors import Layout
from shardfs.tensors.layout import Stretch

BIG = 1 << 20


def stretch(name: str, rows: int, start: int = 0, dtype: str | None = "float32") -> Stretch:
    return Stretch(name, dtype, (rows, 256), start, start + rows * 1024)


def manifest(*chunks: tuple[str, int]) -> Manifest:
    refs = tuple(ChunkRef(chunk_id(name.encode()), size) for name, size in chunks)
    return Manifest(sum(ref.size for ref in refs), refs)


def test_tensors_are_matched_by_name_type_and_shape() -> None:
    old = [stretch("a", 100), stretch("b", 100, BIG)]
    new = [stretch("b", 100), stretch("a", 100, BIG), stretch("c", 100, 2 * BIG)]
    assert [*matches(new, old)] == [
        Match(new[0], old[1], same_shape=True),
        Match(new[1], old[0], same_shape=True),
    ]


def test_a_tensor_that_gained_rows_is_the_same_one() -> None:
    new, old = stretch("a", 110), stretch("a", 100)
    assert [*matches([new], [old])] == [Match(new, old, same_shape=False)]


def test_a_tensor_of_another_type_or_width_is_another_one() -> None:
    old = stretch("a", 100)
    assert [*matches([stretch("a", 100, dtype="bfloat16")], [old])] == []
    assert [*matches([Stretch("a", "float32", (100, 257), old.start, old.end)], [old])] == []


def test_a_file_of_no_known_kind_has_no_tensors() -> None:
    assert large(None) == []
    assert large(Layout("hdf5")) == []


def test_places_are_counted_from_the_start_of_the_tensor() -> None:
    old = manifest(("header", 1000), ("x", 4096), ("y", 8192), ("z", 4096))
    new = manifest(("longer header", 3000), ("x", 4096), ("y2", 8192), ("z2", 4000), ("more", 96))
    match = Match(
        Stretch("t", None, (), 3000, 3000 + 16384), Stretch("t", None, (), 1000, 1000 + 16384), same_shape=True
    )
    assert [*same_places(match, new, old)] == [(new.chunks[2], old.chunks[2])]


def test_a_tensor_that_begins_inside_a_chunk_shares_no_places() -> None:
    old, new = manifest(("all", 20_000)), manifest(("header", 1000), ("x", 19_000))
    match = Match(Stretch("t", None, (), 1000, 20_000), Stretch("t", None, (), 1000, 20_000), same_shape=True)
    assert [*same_places(match, new, old)] == []
