"""All codecs by code, and the choice between them. A new codec is one file and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from shardfs.codecs.base import Buffer, Codec
from shardfs.codecs.delta import DeltaCodec, SecondDeltaCodec
from shardfs.codecs.elements import ELEMENT_OF_DTYPE, Element
from shardfs.codecs.patch import PatchCodec
from shardfs.codecs.planes import PlanesCodec, header
from shardfs.codecs.raw import RawCodec
from shardfs.codecs.zstd import ZstdCodec
from shardfs.errors import MalformedError, UnsupportedVersionError

RAW: Final = RawCodec()
ZSTD: Final = ZstdCodec()
PLANES: Final = PlanesCodec()
DELTA1: Final = DeltaCodec()
DELTA2: Final = SecondDeltaCodec()
PATCH: Final = PatchCodec()
_DTYPES: Final = {element: dtype for dtype, element in ELEMENT_OF_DTYPE.items()}
_CODECS: Final[dict[int, Codec]] = {codec.code: codec for codec in (RAW, ZSTD, PLANES, DELTA1, DELTA2, PATCH)}

# Below this gain the decoder's work (1 GB/s against a plain copy) costs more than the bytes are worth.
MIN_GAIN: Final = 0.02
# A base makes every later read decode it first.
_DELTA_PAYS: Final = 0.97
_PATCH_PAYS: Final = 0.9

_PIECE: Final = 16 * 1024
_PIECES: Final = 3


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
    element = ELEMENT_OF_DTYPE.get(dtype or "")
    encoded = _encode_bytes(data, bases[:1]) if element is None else _encode_values(data, element, bases)
    if len(encoded.payload) <= len(data) * (1 - MIN_GAIN):
        return encoded
    return Encoded(RAW.code, bytes(data) if isinstance(data, bytearray) else data)


def dtype_of(encoded: Encoded) -> str | None:
    """A dtype that `encode` treats as the one it was given, as far as the payload tells.

    Raises:
        MalformedError: the payload is damaged.
    """
    if encoded.codec not in {PLANES.code, DELTA1.code, DELTA2.code}:
        return None
    element, _, _ = header(encoded.payload)
    return _DTYPES[element]


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


def _encode_bytes(data: Buffer, bases: Sequence[Base]) -> Encoded:
    plain = Encoded(ZSTD.code, ZSTD.encode(data))
    if not bases or not len(bases[0].data) or not len(data):
        return plain
    patch = PATCH.encode(data, bases[0].data)
    pays = len(patch) < _PATCH_PAYS * min(len(plain.payload), len(data))
    return Encoded(PATCH.code, patch, (bases[0].id,)) if pays else plain


def _encode_values(data: Buffer, element: Element, bases: Sequence[Base]) -> Encoded:
    order = _order(data, element, bases)
    if order == 0:
        return Encoded(PLANES.code, PLANES.encode(data, element))
    if order == 1:
        return Encoded(DELTA1.code, DELTA1.encode(data, element, bases[0].data), (bases[0].id,))
    plaintexts = [base.data for base in bases[:2]]
    return Encoded(DELTA2.code, DELTA2.encode(data, element, plaintexts), tuple(base.id for base in bases[:2]))


def _order(data: Buffer, element: Element, bases: Sequence[Base]) -> int:
    """How many bases make these values smallest, by the look of a few pieces."""
    if not bases or len(bases[0].data) != len(data) or len(data) < element.width:
        return 0
    size = len(data) // element.width * element.width
    piece = _pieces(data, size)
    last = _pieces(bases[0].data, size)
    first = DELTA1.estimate(piece, element, last)
    if first >= _DELTA_PAYS * PLANES.estimate(piece, element):
        return 0
    if len(bases) < 2 or not element.predictable or len(bases[1].data) != len(data):
        return 1
    before = _pieces(bases[1].data, size)
    return 2 if DELTA2.estimate(piece, element, (last, before)) < first else 1


def _pieces(data: Buffer, size: int) -> Buffer:
    """Pieces from the beginning, the middle and the end of the first `size` bytes, at whole values of any width."""
    if size <= _PIECES * _PIECE:
        return memoryview(data)[:size]
    starts = (0, size // 2 & -16, (size - _PIECE) & -16)
    return b"".join(memoryview(data)[start : start + _PIECE] for start in starts)
