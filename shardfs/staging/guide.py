"""Leads a cursor through a file along the cuts of another version of it, and names a base for each chunk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from shardfs.chunking import Cursor
from shardfs.formats.manifest import ChunkRef
from shardfs.staging.bases import FileBases
from shardfs.staging.ranges import Ranges


class Guide:
    """A cursor and what is known of the chunk at its offset. Call `enter` before each cut.

    Attributes:
        cursor: cuts the file.
        dtype: of the values in the segment that is being cut; None between tensors.
    """

    def __init__(
        self,
        cursor: Cursor,
        dtypes: Mapping[int, str | None],
        bases: FileBases | None,
        kept: Ranges | None = None,
    ) -> None:
        """Guide `cursor` through a file with values of these types, by the starts of segments, and with these bases.

        In the ranges `kept` the file has the bytes of the version before at the same offsets.
        """
        self.cursor = cursor
        self.dtype: str | None = None
        self._dtypes = dtypes
        self._bases = bases
        self._kept = kept
        self._chunks: deque[tuple[int, ChunkRef]] = deque()  # of this segment elsewhere, by the offsets they have here
        self._growth = 0  # bytes that this segment is longer than elsewhere
        self._entered = -1

    @property
    def is_doubtful(self) -> bool:
        """Whether the base of the next chunk comes from a tensor that gained or lost rows since."""
        return self._bases is not None and self.cursor.segment.start in self._bases.doubtful

    def enter(self) -> None:
        """Take up the cuts of another version when the cursor is at the start of a segment."""
        segment = self.cursor.segment
        if segment.start == self._entered:
            return
        self._entered = segment.start
        self._chunks.clear()
        self.dtype = self._dtypes.get(segment.start) if segment.is_tensor else None
        if segment.is_tensor and self._bases is not None:
            chunks = self._bases.tensor(segment.start)
            self._growth = segment.end - segment.start - sum(chunk.size for chunk in chunks)
            self.cursor.inherit(chunk.size for chunk in chunks)
            self._follow(segment.start, chunks)

    def known(self) -> ChunkRef | None:
        """The chunk of the version before that the next bytes are, and that a cut would give without reading them.

        Between tensors a cut depends on the bytes of its chunk alone, unless the segment ended there.
        """
        if not self._kept or self._bases is None or self._bases.before is None or self.is_doubtful:
            return None
        offset, segment = self.cursor.offset, self.cursor.segment
        chunk = self._bases.before.at(offset)
        if chunk is None or not self._kept.covers(offset, offset + chunk.size):
            return None
        end = offset + chunk.size
        if segment.is_tensor:
            return chunk if self.cursor.is_inherited and self.cursor.reach == chunk.size else None
        between, continues = self._bases.between, end < segment.end
        return chunk if end <= segment.end and between.covers(offset, end + continues) else None

    def base(self) -> ChunkRef | None:
        """A chunk that the next one may differ little from."""
        offset = self.cursor.offset
        if not self.cursor.segment.is_tensor:
            return None if self._bases is None else self._bases.at(offset)
        while self._chunks and self._chunks[0][0] < offset:
            self._chunks.popleft()
        found = self._chunks and self._chunks[0][0] == offset and self.cursor.is_inherited
        return self._chunks[0][1] if found else None

    def give_up(self) -> None:
        """The next chunk differs too much from its base: rows were inserted or removed here.

        The first time the chunks behind it are expected to follow as they were. After that the content decides.
        """
        growth, self._growth = self._growth, 0
        (_, here), *behind = self._chunks
        self._chunks.clear()
        self.cursor.inherit((here.size + growth, *(chunk.size for _, chunk in behind)) if growth else ())
        if growth:
            self._follow(self.cursor.offset + here.size + growth, [chunk for _, chunk in behind])

    def _follow(self, offset: int, chunks: Iterable[ChunkRef]) -> None:
        for chunk in chunks:
            self._chunks.append((offset, chunk))
            offset += chunk.size
