"""How the parts of one version are stored: its files, or the tensors of its model files.

A chunk that several parts use, small tensors or equal files, counts for each of them by the bytes that it uses: the
parts add up to what the version stores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from shardfs.formats.ids import TreeId
from shardfs.formats.manifest import Manifest
from shardfs.history.content import FileReader, manifest_of
from shardfs.history.objects import ChunkSource, Objects
from shardfs.history.paths import Path, files
from shardfs.store.chains import of_index
from shardfs.store.index import Index
from shardfs.store.tally import Tally
from shardfs.tensors import Detector, Layout, Stretch


@dataclass(frozen=True, slots=True)
class Part:
    """A file, a tensor of a model file, or what lies between its tensors.

    Attributes:
        path: of the file, from the root of the version.
        tensor: the tensor, or the member of an archive; None for a whole file and for what lies between tensors.
        logical_bytes: size.
        stored_bytes: its share of the encoded forms of its chunks; chunks that they are differences to are not counted.
        chunks: chunks that it touches, repeated ones counted once.
        codecs: names of their codecs, the one of most bytes first.
        depth: chunks in a row that must be decoded before one of them, at most; more than `MAX_BASE_DEPTH` when one
            of those is not known.
    """

    path: Path
    tensor: Stretch | None
    logical_bytes: int
    stored_bytes: int
    chunks: int
    codecs: tuple[str, ...]
    depth: int


By = Literal["file", "tensor"]


def parts(index: Index, objects: Objects, chunks: ChunkSource, tree: TreeId, by: By) -> list[Part]:
    """The files of a tree, or the tensors of its model files; that of most stored bytes first.

    For files no chunk is read; for tensors the headers of model files, and of other files the first chunk, to tell
    that they are none.

    Raises:
        ObjectNotFoundError, ObjectCorruptedError, RemoteError: a tree or a manifest cannot be read.
        ChunkNotFoundError, ChunkCorruptedError: a header cannot be read.
    """
    pieces: list[_Piece] = []
    detector = Detector()
    for path, entry in files(objects, tree):
        if by == "file":
            pieces.append(_Piece(path, None, _bytes_of(manifest_of(entry, objects).chunks)))
            continue
        reader = FileReader(entry, objects, chunks)
        layout = detector.detect(reader.read_at, reader.size, b"/".join(path))
        if layout is not None:
            pieces += _tensors(path, reader.manifest, layout)
    return _measured(index, pieces)


class _Piece(NamedTuple):
    """A part before it is known how it is stored: by chunk the bytes that it uses."""

    path: Path
    tensor: Stretch | None
    uses: Counter[bytes]


def _tensors(path: Path, manifest: Manifest, layout: Layout) -> Iterator[_Piece]:
    """The tensors of a file and what lies between them."""
    rest = _bytes_of(manifest.chunks)
    for stretch in layout.stretches:
        spans = manifest.locate(stretch.start, stretch.end - stretch.start)
        uses = _bytes_of((span.chunk.id, span.end - span.start) for span in spans)
        rest.subtract(uses)
        yield _Piece(path, stretch, uses)
    if between := +rest:
        yield _Piece(path, None, between)


def _bytes_of(chunks: Iterable[tuple[bytes, int]]) -> Counter[bytes]:
    uses: Counter[bytes] = Counter()
    for id_, size in chunks:
        uses[id_] += size
    return uses


def _measured(index: Index, pieces: list[_Piece]) -> list[Part]:
    totals: Counter[bytes] = Counter()
    for piece in pieces:
        totals.update(piece.uses)
    chains = of_index(index)
    chains.learn(totals)
    found = []
    for path, tensor, uses in pieces:
        tally = Tally()
        for id_, size in uses.items():
            if (entry := chains.entry(id_)) is not None:
                tally.add(entry, chains.depth(id_), size, size / totals[id_])
        stored = tally.stored_bytes
        found.append(Part(path, tensor, uses.total(), stored, len(uses), tally.codecs, tally.depth))
    return sorted(found, key=lambda part: (-part.stored_bytes, part.path, part.tensor.start if part.tensor else -1))
