"""All codecs by code, and the choice between them. A new codec is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from shardfs.codecs.base import Buffer, Codec
from shardfs.codecs.raw import RawCodec
from shardfs.codecs.zstd import ZstdCodec
from shardfs.errors import MalformedError, UnsupportedVersionError

RAW: Final = RawCodec()
ZSTD: Final = ZstdCodec()
_CODECS: Final[dict[int, Codec]] = {codec.code: codec for codec in (RAW, ZSTD)}

# Below this gain the decoder's work (1 GB/s against a plain copy) costs more than the bytes are worth.
MIN_GAIN: Final = 0.02


class Encoded(NamedTuple):
    """A chunk as it is stored: code of its codec, payload, ids of the base chunks that the codec needs."""

    codec: int
    payload: bytes | memoryview
    bases: tuple[bytes, ...] = ()


class Base(NamedTuple):
    """A chunk that may serve as a base: its id and its plaintext."""

    id: bytes
    data: Buffer


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


def encode(data: Buffer, dtype: str | None = None, bases: Sequence[Base] = ()) -> Encoded:
    """The smallest encoding of `data`; raw unless that gains at least `MIN_GAIN`.

    A raw payload is a view of `data` when that is a memoryview: write it before the buffer is used again.

    Args:
        data: the plaintext of one chunk.
        dtype: what its bytes are, a name of `shardfs.tensors.layout.DTYPE_BITS`; None if that is not known.
        bases: first the chunk at the same place in the version before, then the one before that. The result
            may name fewer.
    """
    del dtype, bases
    payload = ZSTD.encode(data)
    if len(payload) <= len(data) * (1 - MIN_GAIN):
        return Encoded(ZSTD.code, payload)
    return Encoded(RAW.code, bytes(data) if isinstance(data, bytearray) else data)


def decode(code: int, payload: Buffer, raw_size: int, bases: Sequence[Buffer] = ()) -> bytes:
    """The plaintext of a payload.

    Args:
        code: of the codec.
        payload: as it is stored.
        raw_size: bytes of plaintext.
        bases: the plaintexts of the chunks that `Encoded.bases` named, in that order.

    Raises:
        MalformedError: the payload is damaged, or the number of bases is not the codec's.
        UnsupportedVersionError: unknown codec.
    """
    codec = codec_by_code(code)
    if len(bases) != codec.base_count:
        msg = f"a {codec.name} payload with {len(bases)} bases, expected {codec.base_count}"
        raise MalformedError(msg)
    return codec.decode(payload, raw_size, bases)
