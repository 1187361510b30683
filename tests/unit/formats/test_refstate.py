from __future__ import annotations

import json

import pytest

from shardfs.errors import MalformedError, UnsupportedVersionError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import CommitId
from shardfs.formats.refstate import FIRST_ID, RefState, state_name, state_number

FIRST = RefState(0, FIRST_ID, None)
A, B = CommitId(b"\xaa" * 32), CommitId(b"\xbb" * 32)
ONE, TWO = "1" * 32, "2" * 32

GOLDEN = b"""{
"version": 1,
"number": 2,
"id": "22222222222222222222222222222222",
"previous": "11111111111111111111111111111111",
"head": "refs/heads/main",
"refs": {
"refs/heads/main": "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
"refs/tags/gr\\u00f6\\u00dfe": "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
}
}
"""


def test_golden() -> None:
    state = FIRST.moved("refs/heads/main", A, ONE).moved("refs/tags/größe", B, TWO)
    assert state.to_bytes() == GOLDEN
    assert RefState.from_bytes(GOLDEN) == state
    assert state_name(state.number) == "0000000000000002"


def test_a_state_is_a_listing() -> None:
    assert ref_format.refs_from_bytes(GOLDEN) == ("refs/heads/main", {"refs/heads/main": A, "refs/tags/größe": B})


def test_head_is_the_first_branch_and_stays() -> None:
    tagged = FIRST.moved("refs/tags/v1", A, ONE)
    assert tagged.head is None
    one = tagged.moved("refs/heads/one", A, TWO)
    assert one.head == "refs/heads/one"
    two = one.moved("refs/heads/two", A, ONE)
    assert two.head == "refs/heads/one"
    gone = two.moved("refs/heads/one", None, TWO)
    assert (gone.head, dict(gone.refs)) == ("refs/heads/one", {"refs/tags/v1": A, "refs/heads/two": A})
    assert gone.moved("refs/heads/three", A, ONE).head == "refs/heads/three"


def test_names_sort_as_numbers_do() -> None:
    numbers = [0, 9, 10, 99, 100, 2**53 - 1]
    names = [state_name(number) for number in numbers]
    assert names == sorted(names)
    assert [state_number(name) for name in names] == numbers


@pytest.mark.parametrize(
    "name", ["", "1", "0000000000000001.json", "00000000000000001", "9" * 16, "\u0660" * 16, "heads/main"]
)
def test_other_names_are_no_states(name: str) -> None:
    assert state_number(name) is None


@pytest.mark.parametrize(
    "change",
    [
        {"number": -1},
        {"number": 1.0},
        {"number": True},
        {"number": 2**53},
        {"number": None},
        {"id": "x" * 32},
        {"id": 7},
        {"previous": None},
        {"previous": "1" * 31},
        {"refs": {"refs/heads/../x": "a" * 64}},
        {"head": "main"},
    ],
)
def test_what_breaks_the_format_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        RefState.from_bytes(json.dumps({**json.loads(GOLDEN), **change}).encode())


def test_state_0_has_nothing_before_it() -> None:
    with pytest.raises(MalformedError):
        RefState.from_bytes(json.dumps({**json.loads(GOLDEN), "number": 0}).encode())


def test_newer_versions_are_refused() -> None:
    with pytest.raises(UnsupportedVersionError):
        RefState.from_bytes(json.dumps({**json.loads(GOLDEN), "version": 2}).encode())
