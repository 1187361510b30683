"""The identity: for bytes that do not get smaller. Spec: docs/design/format/codecs.md, "raw"."""

from __future__ import annotations

from shardfs.codecs.base import Buffer
from shardfs.errors import MalformedError


class RawCodec:
    """Payload and plaintext are the same bytes."""

    code = 0
    name = "raw"
    needs_base = False

    def encode(self, data: Buffer, base: Buffer | None = None) -> bytes:
        """A copy of `data`."""
        del base
        return bytes(data)

    def decode(self, payload: Buffer, raw_size: int, base: Buffer | None = None) -> bytes:
        """A copy of the payload.

        Raises:
            MalformedError: the payload is not `raw_size` bytes long.
        """
        del base
        if len(payload) != raw_size:
            msg = f"raw payload of {len(payload)} bytes, expected {raw_size}"
            raise MalformedError(msg)
        return bytes(payload)
