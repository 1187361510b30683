"""The choice between codecs, and what every decoder refuses."""

from __future__ import annotations

import struct
import threading
from random import Random

import pytest
import zstandard

from shardfs.codecs import registry
from shardfs.codecs.elements import ELEMENT_OF_DTYPE
from shardfs.codecs.registry import DELTA1, DELTA2, PATCH, PLANES, RAW, ZSTD, Base, Encoded
from shardfs.errors import MalformedError, UnsupportedVersionError
from shardfs.tensors.dtypes import BLOCKS
from tests.stores import noise


def test_small_gains_are_not_worth_a_decoder() -> None:
    assert registry.encode(b"a" * 1000).codec == ZSTD.code
    assert registry.encode(noise(1, 1000)).codec == RAW.code
    assert registry.encode(b"").codec == RAW.code
    almost = noise(1, 9900) + bytes(100)  # zstd saves about 1 %
    assert registry.encode(almost).codec == RAW.code


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview])
def test_every_buffer_comes_back(wrap: type[bytes]) -> None:
    for data in (b"", b"a", b"a" * 5000, noise(2, 5000)):
        code, payload, bases = registry.encode(wrap(data))
        assert bases == ()
        assert len(payload) <= len(data)
        assert registry.decode(code, payload, len(data)) == data


def test_the_payload_of_a_bytearray_is_its_own() -> None:
    data = bytearray(noise(3, 100))
    payload = registry.encode(data).payload
    data[:] = bytes(100)
    assert bytes(payload) == noise(3, 100)


def test_a_raw_payload_has_its_size() -> None:
    for size in (0, 2, 4):
        with pytest.raises(MalformedError):
            registry.decode(RAW.code, b"abc", size)


@pytest.mark.parametrize("code", [6, 7, 255, -1, 256])
def test_unknown_codecs_are_of_a_newer_program(code: int) -> None:
    with pytest.raises(UnsupportedVersionError, match="newer"):
        registry.decode(code, b"", 0)


def test_a_frame_for_a_dictionary_is_refused() -> None:
    trained = zstandard.ZstdCompressionDict(noise(9, 2000), dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    payload = zstandard.ZstdCompressor(dict_data=trained).compress(noise(9, 1500))
    with pytest.raises(MalformedError):
        registry.decode(ZSTD.code, payload, 1500)


def test_threads_do_not_share_contexts() -> None:
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            for i in range(20):
                data = noise(seed * 100 + i, 3000) * 2
                code, payload, _ = registry.encode(data)
                assert registry.decode(code, payload, len(data)) == data
                values = series(3, 2000 + seed)
                sizes_and_codes(values[0], "float32", values[1:])
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def floats(values: list[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def series(versions: int, count: int = 40_000) -> list[bytes]:
    """Weights that go on in the direction of their last step, and jitter; the newest first."""
    random = Random(versions)
    values = [random.gauss(0, 0.02) for _ in range(count)]
    steps = [random.gauss(0, 1e-4) for _ in range(count)]
    made = [floats(values)]
    for _ in range(versions - 1):
        steps = [0.9 * step + random.gauss(0, 1e-6) for step in steps]
        values = [value + step for value, step in zip(values, steps, strict=True)]
        made.append(floats(values))
    return made[::-1]


def sizes_and_codes(data: bytes, dtype: str | None, bases: list[bytes]) -> list[tuple[int, int]]:
    """Code and payload size with no base, one and two; all decode."""
    made = []
    for count in range(3):
        chosen = registry.encode(data, dtype, [Base(bytes([i]), base) for i, base in enumerate(bases[:count])])
        assert chosen.bases == (b"\0", b"\1")[: len(chosen.bases)]
        assert registry.decode(chosen.codec, chosen.payload, len(data), bases[: len(chosen.bases)]) == data
        made.append((chosen.codec, len(chosen.payload)))
    return made


def test_every_base_makes_a_trained_tensor_smaller() -> None:
    new, last, before = series(3)
    found = sizes_and_codes(new, "float32", [last, before])
    assert [code for code, _ in found] == [PLANES.code, DELTA1.code, DELTA2.code]
    (_, solo), (_, first), (_, second) = found
    assert second < 0.9 * first
    assert first < 0.9 * solo
    assert solo < 0.9 * len(new)


def test_a_base_that_does_not_help_is_not_named() -> None:
    new, other = series(1)[0], floats([Random(9).gauss(0, 0.02) for _ in range(40_000)])
    assert [code for code, _ in sizes_and_codes(new, "float32", [other, other])] == [PLANES.code] * 3
    steady, last, _ = series(3)
    assert [code for code, _ in sizes_and_codes(steady, "float32", [last, last])][2] == DELTA1.code


@pytest.mark.parametrize("dtype", sorted(ELEMENT_OF_DTYPE))
def test_an_almost_equal_base_leaves_almost_nothing(dtype: str) -> None:
    last = noise(1, 100_003)
    new = bytearray(last)
    new[50_000] ^= 1
    code, size = sizes_and_codes(bytes(new), dtype, [last, last])[1]
    assert code == DELTA1.code
    assert size < 3000
    assert sizes_and_codes(last, dtype, [last, last])[1][1] < 3000


def test_a_tensor_of_another_length_is_no_base() -> None:
    new, last, before = series(3)
    for one, two in ((last[:-4], before), (last + b"more", before), (b"", b"")):
        assert [code for code, _ in sizes_and_codes(new, "float32", [one, two])] == [PLANES.code] * 3
    assert sizes_and_codes(new, "float32", [last, before[:-4]])[2][0] == DELTA1.code


def test_edited_text_is_a_patch() -> None:
    text = b"".join(b"line %d of a configuration, sum %d\n" % (i, i * i) for i in range(3000))
    edited = text[:30_000] + b"inserted" + text[30_000:60_000] + text[70_000:]
    found = sizes_and_codes(edited, None, [text, text])
    assert [code for code, _ in found] == [ZSTD.code, PATCH.code, PATCH.code]
    assert found[1][1] < 200
    assert [code for code, _ in sizes_and_codes(edited, None, [noise(4, 50_000), text])] == [ZSTD.code] * 3
    code, size = sizes_and_codes(noise(5, 100_000), None, [noise(5, 120_000)])[1]
    assert code == PATCH.code
    assert size < 100


@pytest.mark.parametrize("dtype", [None, "float32", "int8", "q4_0"])
def test_nothing_and_little(dtype: str | None) -> None:
    for size in (0, 1, 3, 4, 5):
        data = noise(size, size)
        assert {code for code, _ in sizes_and_codes(data, dtype, [data, data])} <= {RAW.code}


def test_zeros_are_nothing() -> None:
    for dtype in ("float32", "bfloat16", "int64", None):
        assert max(size for _, size in sizes_and_codes(bytes(1 << 20), dtype, [noise(1, 1 << 20)])) < 600


def test_rows_that_repeat_are_stored_once() -> None:
    table = noise(7, 4096) * 200
    assert sizes_and_codes(table, "float32", [])[0][1] < len(table) / 20


def test_every_dtype_of_whole_bytes_has_its_element() -> None:
    assert {name for name, (elements, _) in BLOCKS.items() if elements == 1} <= ELEMENT_OF_DTYPE.keys()
    for name, element in ELEMENT_OF_DTYPE.items():
        assert BLOCKS[name][1] % element.width == 0


def test_a_payload_tells_how_to_encode_its_plaintext_anew() -> None:
    data = noise(1, 4000)
    for dtype in ELEMENT_OF_DTYPE:
        told = registry.dtype_of(Encoded(PLANES.code, PLANES.encode(data, ELEMENT_OF_DTYPE[dtype])))
        assert told is not None
        assert registry.encode(data, told) == registry.encode(data, dtype)
    assert registry.dtype_of(registry.encode(b"text " * 100)) is None


@pytest.mark.parametrize("code", [DELTA1.code, DELTA2.code, PATCH.code])
def test_bases_must_be_there(code: int) -> None:
    count = registry.codec_by_code(code).base_count
    for wrong in range(4):
        if wrong != count:
            with pytest.raises(MalformedError, match=f"{wrong} bases, expected {count}"):
                registry.decode(code, b"", 4, [b"1234"] * wrong)


def test_bases_of_another_length_are_refused() -> None:
    new, last, before = series(3, 100)
    payload = registry.encode(new, "float32", [Base(b"1", last), Base(b"2", before)])
    assert payload.codec == DELTA2.code
    for bases in ([last[1:], before], [last, before + b"x"], [b"", b""]):
        with pytest.raises(MalformedError, match="bases of"):
            registry.decode(DELTA2.code, payload.payload, len(new), bases)
    with pytest.raises(MalformedError, match="empty base"):
        registry.decode(PATCH.code, b"x", 1, [b""])
