"""What a scheme says about a series."""

from __future__ import annotations

from dataclasses import dataclass, field

REFERENCE_BYTES = 48  # an id of 32 bytes with a place and a size


class NotLosslessError(Exception):
    """A scheme gave other bytes back than it was given."""


@dataclass
class Result:
    """A sum that grows with every file.

    Attributes:
        references: chunks or tensors that the files are made of, the same one counted each time.
        encoded: bytes of the encoding of each distinct one, by its digest.
        distinct: bytes of the distinct ones before encoding.
        encode_seconds: time of the encoder alone, where the scheme takes it.
    """

    references: int = 0
    encoded: dict[bytes, int] = field(default_factory=dict)
    distinct: int = 0
    encode_seconds: float = 0.0

    @property
    def stored(self) -> int:
        """Bytes that the scheme is charged with."""
        return sum(self.encoded.values()) + REFERENCE_BYTES * self.references

    def add(self, digest: bytes, size: int, encoded: int) -> None:
        """Count a chunk that was not there."""
        self.encoded[digest] = encoded
        self.distinct += size


def check_same(decoded: object, original: object) -> None:
    """Compare what was decoded.

    Raises:
        NotLosslessError: it differs.
    """
    if decoded != original:
        raise NotLosslessError("a decoded chunk differs from its original")
