"""Which tensors of one model file are those of another, by their names, types and shapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shardfs.chunking import LARGE_TENSOR
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.tensors import Layout, runs
from shardfs.tensors.layout import Stretch


class Match(NamedTuple):
    """A tensor in two files; `same_shape` is false where it gained or lost rows."""

    new: Stretch
    old: Stretch
    same_shape: bool


def large(layout: Layout | None) -> list[Stretch]:
    """The stretches of a file that have chunks of their own; small neighbours count as one."""
    joined = runs(layout.stretches, LARGE_TENSOR) if layout is not None else ()
    return [stretch for stretch in joined if stretch.end - stretch.start >= LARGE_TENSOR]


def matches(new: Iterable[Stretch], old: Iterable[Stretch]) -> Iterator[Match]:
    """The stretches of `new` that are in `old` too: of the same name and type, and of the same shape but for rows."""
    olds = list(old)
    exact = {(one.name, one.dtype, one.shape): one for one in olds}
    loose = {(one.name, one.dtype, one.shape[1:]): one for one in olds}
    for stretch in new:
        found = exact.get((stretch.name, stretch.dtype, stretch.shape))
        if found is not None:
            yield Match(stretch, found, same_shape=True)
        elif (found := loose.get((stretch.name, stretch.dtype, stretch.shape[1:]))) is not None:
            yield Match(stretch, found, same_shape=False)


def same_places(match: Match, new: Manifest, old: Manifest) -> Iterator[tuple[ChunkRef, ChunkRef]]:
    """Different chunks, the new one first, that hold the same range of a tensor in two files."""
    starts = _places(old.within(match.old.start, match.old.end))
    for place, chunk in _places(new.within(match.new.start, match.new.end)).items():
        other = starts.get(place)
        if other is not None and other.size == chunk.size and other.id != chunk.id:
            yield chunk, other


def _places(chunks: Iterable[ChunkRef]) -> dict[int, ChunkRef]:
    """Chunks that follow each other, by how far they are from the first."""
    found: dict[int, ChunkRef] = {}
    offset = 0
    for chunk in chunks:
        found[offset] = chunk
        offset += chunk.size
    return found
