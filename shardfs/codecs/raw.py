"""The identity: for bytes that do not get smaller. Spec: docs/design/format/codecs.md, "raw"."""

from __future__ import annotations

from collections.abc import Sequence

from shardfs.codecs.base import Buffer
from shardfs.errors import MalformedError


class RawCodec:
    """Payload and plaintext are the same bytes."""

    code = 0
    name = "raw"
    base_count = 0

    def encode(self, data: Buffer) -> bytes:
        """A copy of `data`."""
        return bytes(data)

    def decode(self, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
        """A copy of the payload.

        Raises:
            MalformedError: the payload is not `raw_size` bytes long.
        """
        del bases
        if len(payload) != raw_size:
            msg = f"raw payload of {len(payload)} bytes, expected {raw_size}"
            raise MalformedError(msg)
        return bytes(payload)
