"""Messages between client and server: what is written is read, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.errors import MalformedError
from shardfs.formats import wire
from shardfs.formats.ids import CommitId

ids = st.binary(min_size=32, max_size=32)


@given(st.lists(ids, max_size=50))
def test_ids_round_trip(value: list[bytes]) -> None:
    assert wire.ids_from_bytes(wire.ids_to_bytes(value)) == value


@given(st.lists(st.booleans(), max_size=50))
def test_flags_round_trip(value: list[bool]) -> None:
    assert wire.flags_from_bytes(wire.flags_to_bytes(value), len(value)) == value


@given(st.one_of(st.none(), ids))
def test_current_round_trip(value: bytes | None) -> None:
    assert wire.current_from_bytes(wire.current_to_bytes("lost", value)) == value


@pytest.mark.parametrize(
    "data", [b"", b"<html>", b"[]", b"{}", b'{"ref": "a"}', b'{"ref": "a", "commit": "00"}', b"[" * 9999]
)
def test_other_answers_are_no_receipts(data: bytes) -> None:
    assert not wire.is_receipt(data, ref="a", commit=None)
    assert wire.is_receipt(b'{"ref": "a", "commit": null, "more": 1}', ref="a", commit=None)


@given(ids)
def test_entity_tag_round_trip(value: bytes) -> None:
    assert wire.parse_entity_tag(wire.entity_tag(CommitId(value))) == value


@given(st.text())
def test_errors_come_out_as_one_printable_line(text: str) -> None:
    found = wire.error_from_bytes(wire.error_to_bytes(text))
    assert found is not None
    assert found.isprintable()
    assert len(found) <= wire.MAX_ERROR_TEXT


@given(st.binary(max_size=200))
def test_noise_is_refused_or_understood(data: bytes) -> None:
    wire.error_from_bytes(data)
    for parse in (wire.ids_from_bytes, wire.current_from_bytes, lambda d: wire.flags_from_bytes(d, 7)):
        try:
            parse(data)
        except MalformedError:
            continue


@given(st.text(max_size=60))
def test_headers_of_noise(text: str) -> None:
    for parse in (wire.parse_content_range, wire.parse_entity_tag):
        with pytest.raises(MalformedError):
            parse(text)


def test_content_range() -> None:
    assert wire.parse_content_range("bytes 0-9/100") == (0, 10, 100)
    assert wire.parse_content_range("bytes 5-5/*") == (5, 1, None)
    for bad in ("bytes 9-0/100", "bytes */100", "bytes 0-9", "bytes 0-9/100, 1-2/3", "bytes \u0661-\u0662/\u0663"):
        with pytest.raises(MalformedError):
            wire.parse_content_range(bad)


@given(st.integers(1, 1 << 40), st.data())
def test_the_rest_of_a_pack_round_trip(size: int, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, size))
    assert wire.parse_rest_of(wire.rest_of(offset, size)) == (offset, size)


def test_what_is_not_the_rest_of_a_pack() -> None:
    for bad in (
        "bytes 0-8/10",
        "bytes 9-8/9",
        "bytes 0-9/*",
        "bytes */*",
        "bytes 0-9",
        "items 0-9/10",
        "bytes 11-9/10",
    ):
        with pytest.raises(MalformedError):
            wire.parse_rest_of(bad)


def test_too_many_ids() -> None:
    with pytest.raises(MalformedError):
        wire.ids_from_bytes(bytes(32 * (wire.MAX_HAS_IDS + 1)))
