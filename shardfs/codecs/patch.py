"""Bytes of no known type that mostly repeat those of a base. Spec: docs/design/format/codecs.md, "patch"."""

from __future__ import annotations

from collections.abc import Sequence

import zstandard

from shardfs.codecs.base import Buffer
from shardfs.errors import MalformedError
from shardfs.formats.zstdframe import decompress_exact


class PatchCodec:
    """One zstd frame with the base as its dictionary; data and base may differ in length."""

    code = 5
    name = "patch"
    base_count = 1

    def encode(self, data: Buffer, base: Buffer) -> bytes:
        """One frame; may be longer than `data`. The base holds a byte or more."""
        # The window must reach from the last byte of the data to the first of the base.
        window = min(max((len(data) + len(base)).bit_length(), zstandard.WINDOWLOG_MIN), 27)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            3, source_size=len(data), dict_size=len(base), window_log=window
        )
        return bytes(
            zstandard.ZstdCompressor(compression_params=parameters, dict_data=_dictionary(base)).compress(data)
        )

    def decode(self, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
        """See `Codec`."""
        frame = bytes(payload) if isinstance(payload, bytearray) else payload
        return decompress_exact(frame, raw_size, _dictionary(bases[0]))


def _dictionary(base: Buffer) -> zstandard.ZstdCompressionDict:
    if not len(base):
        msg = "patch of an empty base"
        raise MalformedError(msg)
    return zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
