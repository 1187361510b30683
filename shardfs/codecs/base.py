"""The contract of a codec."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

Buffer = bytes | bytearray | memoryview
MAX_BASE_DEPTH: Final = 16  # codecs that need bases form chains; this bounds a hostile or cyclic one


class Codec(Protocol):
    """A reversible encoding; stateless, safe to share between threads. How to encode is each codec's own matter.

    Attributes:
        code: recorded in packs, 0 to 255, never re-used for another encoding.
        name: for people.
        base_count: how many base chunks `decode` needs: 0, 1 or 2.
    """

    code: int
    name: str
    base_count: int

    def decode(self, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
        """The plaintext, exactly `raw_size` bytes; never allocates more than a small multiple of that.

        Args:
            payload: what the codec made.
            raw_size: bytes of plaintext.
            bases: the plaintexts of `base_count` chunks, the newest first.

        Raises:
            MalformedError: a payload that does not decode to `raw_size` bytes with these bases.
        """
        ...
