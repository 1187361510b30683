"""What the stored forms of chunks, or of parts of them, add up to."""

from __future__ import annotations

from collections import Counter

from shardfs.codecs.registry import codec_by_code
from shardfs.errors import UnsupportedVersionError
from shardfs.formats.pack import Entry


class Tally:
    """Sums over stored chunks.

    Attributes:
        chunks: how many were added.
        raw_bytes: bytes of plaintext.
        links: links of all their chains of bases.
        depth: links of the deepest chain.
    """

    def __init__(self) -> None:
        self.chunks = 0
        self.raw_bytes = 0
        self.links = 0
        self.depth = 0
        self._stored = 0.0
        self._codecs: Counter[int] = Counter()

    def add(self, entry: Entry, depth: int, raw_bytes: int, share: float = 1.0) -> None:
        """Count a chunk.

        Args:
            entry: how it is stored.
            depth: links of its chain of bases.
            raw_bytes: bytes of plaintext to count.
            share: the part of its stored bytes to count, 0 to 1.
        """
        self.chunks += 1
        self.raw_bytes += raw_bytes
        self.links += depth
        self.depth = max(self.depth, depth)
        self._stored += entry.stored_size * share
        self._codecs[entry.codec] += raw_bytes

    @property
    def stored_bytes(self) -> int:
        """Bytes of the encoded forms, rounded; bases of deltas are not among them."""
        return round(self._stored)

    @property
    def codecs(self) -> tuple[str, ...]:
        """Names of the codecs, the one of most plaintext bytes first."""
        return tuple(codec_name(code) for code in sorted(self._codecs, key=lambda code: (-self._codecs[code], code)))


def codec_name(code: int) -> str:
    """The name of a codec; its number when this program does not know it."""
    try:
        return codec_by_code(code).name
    except UnsupportedVersionError:
        return str(code)
