"""The contract of a codec."""

from __future__ import annotations

from typing import Final, Protocol

Buffer = bytes | bytearray | memoryview
MAX_BASE_DEPTH: Final = 8  # codecs that need a base form chains; this bounds a hostile or cyclic one


class Codec(Protocol):
    """A reversible encoding; stateless, safe to share between threads.

    Attributes:
        code: recorded in packs, 0 to 255, never re-used for another encoding.
        name: for people.
        needs_base: whether encode and decode need the plaintext of a base chunk.
    """

    code: int
    name: str
    needs_base: bool

    def encode(self, data: Buffer, base: Buffer | None = None) -> bytes:
        """The payload for `data`; may be longer than `data`, the caller compares."""
        ...

    def decode(self, payload: Buffer, raw_size: int, base: Buffer | None = None) -> bytes:
        """The plaintext, exactly `raw_size` bytes; never allocates more than a small multiple of that.

        Raises:
            MalformedError: a payload that does not decode to `raw_size` bytes.
        """
        ...
