"""The choice between codecs, and what every decoder refuses."""

from __future__ import annotations

import threading

import pytest
import zstandard

from shardfs.codecs import registry
from shardfs.codecs.registry import RAW, ZSTD
from shardfs.errors import MalformedError, UnsupportedVersionError
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
            for i in range(50):
                data = noise(seed * 100 + i, 3000) * 2
                code, payload, _ = registry.encode(data)
                assert registry.decode(code, payload, len(data)) == data
        except BaseException as error:  # noqa: BLE001
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
