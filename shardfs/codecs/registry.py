"""All codecs by code, and the choice between them. A new codec is one file and one line here."""

from __future__ import annotations

from typing import Final, NamedTuple

from shardfs.codecs.base import Buffer, Codec
from shardfs.codecs.raw import RawCodec
from shardfs.codecs.zstd import ZstdCodec
from shardfs.errors import UnsupportedVersionError

RAW: Final = RawCodec()
ZSTD: Final = ZstdCodec()
_CODECS: Final[dict[int, Codec]] = {codec.code: codec for codec in (RAW, ZSTD)}

# Below this gain the decoder's work (1 GB/s against a plain copy) costs more than the bytes are worth.
MIN_GAIN: Final = 0.02


class Encoded(NamedTuple):
    """A chunk as it is stored: payload, code of its codec, id of its base chunk if the codec needs one."""

    codec: int
    payload: bytes | memoryview
    base: bytes | None = None


def codec_by_code(code: int) -> Codec:
    """The codec with this code.

    Raises:
        UnsupportedVersionError: a code that this program does not know.
    """
    codec = _CODECS.get(code)
    if codec is None:
        msg = f"codec {code} is unknown; a newer shardfs wrote this"
        raise UnsupportedVersionError(msg)
    return codec


def encode(data: Buffer) -> Encoded:
    """The smaller of zstd and raw; raw unless zstd gains at least `MIN_GAIN`.

    A raw payload is a view of `data` when that is a memoryview: write it before the buffer is used again.
    """
    payload = ZSTD.encode(data)
    if len(payload) <= len(data) * (1 - MIN_GAIN):
        return Encoded(ZSTD.code, payload)
    return Encoded(RAW.code, bytes(data) if isinstance(data, bytearray) else data)


def decode(code: int, payload: Buffer, raw_size: int, base: Buffer | None = None) -> bytes:
    """The plaintext of a payload.

    Raises:
        MalformedError: the payload is damaged. UnsupportedVersionError: unknown codec.
    """
    return codec_by_code(code).decode(payload, raw_size, base)
