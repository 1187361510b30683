"""Ref names, ref files, HEAD, reflog lines and listings."""

from __future__ import annotations

import json

import pytest

from shardfs.errors import MalformedError, UnsupportedVersionError, UsageError
from shardfs.formats import ref
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import BRANCHES, REMOTES, TAGS, Head, LogLine, PackSize, full_name, is_ref_name

ONE = CommitId(b"\1" * 32)
TWO = CommitId(b"\2" * 32)

GOOD = [
    "main",
    "feature/x",
    "v1.0",
    "a@b",
    "é",
    "模型",
    "x" * 189,
    "a%2e%2e",
    "#",
    "a&b",
    "HEAD",
    "abcd",
    "a.lockx",
    "@",
]
HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/../b",
    "a/..",
    "/a",
    "a/",
    "a//b",
    ".a",
    "a/.b",
    "-a",
    "a/-b",
    "a.",
    "a./b",
    "a.lock",
    "a.lock/b",
    "a..b",
    "a b",
    "a\tb",
    "a\nb",
    "a\0b",
    "a\x7fb",
    "a\x85b",
    "a\x9fb",
    "a\u00a0b",
    "a\u2028b",
    "a\u3000b",
    "a~b",
    "a^b",
    "a:b",
    "a?b",
    "a*b",
    "a[b",
    "a\\b",
    "a@{b",
    "\ud800",
    "\udcff",
    "x" * 190,
    "é" * 95,
]


@pytest.mark.parametrize("short", GOOD)
def test_good_names(short: str) -> None:
    assert is_ref_name(BRANCHES + short)
    assert ref.check_ref_name(BRANCHES + short) == BRANCHES + short


@pytest.mark.parametrize("short", HOSTILE)
def test_hostile_names(short: str) -> None:
    assert not is_ref_name(BRANCHES + short)
    assert not is_ref_name(f"{REMOTES}origin/{short * 2 if len(short) > 90 else short}")
    with pytest.raises(MalformedError):
        ref.check_ref_name(BRANCHES + short)
    with pytest.raises(UsageError):
        full_name(BRANCHES, short)


@pytest.mark.parametrize(
    "name", ["main", "HEAD", "refs/heads", "refs/x/main", "refs/remotes/origin", "config.toml", "/refs/heads/x"]
)
def test_names_outside_the_three_places_are_none(name: str) -> None:
    assert not is_ref_name(name)


def test_every_branch_of_a_remote_can_be_tracked() -> None:
    longest = "x" * (200 - len(BRANCHES))
    assert is_ref_name(BRANCHES + longest)
    assert is_ref_name(f"{REMOTES}{'r' * 64}/{longest}")
    assert not is_ref_name(f"{REMOTES}{'r' * 64}/{longest}x")


@pytest.mark.parametrize("short", ["HEAD", "abcd", "0123456789", "f" * 64])
def test_people_cannot_make_names_that_read_like_ids(short: str) -> None:
    with pytest.raises(UsageError, match="cannot be a name"):
        full_name(TAGS, short)
    assert full_name(TAGS, "g" + short) == f"refs/tags/g{short}"


def test_a_ref_file_is_exact() -> None:
    data = ref.ref_to_bytes(ONE)
    assert ref.ref_from_bytes(data) == ONE
    for bad in (
        b"",
        data[:-1],
        data + b"\n",
        data.upper().replace(b"01", b"AB"),
        b" " + data[1:],
        data[:-1] + b"\r",
        b"\xff" * 65,
    ):
        with pytest.raises(MalformedError):
            ref.ref_from_bytes(bad)


def test_every_flipped_bit_of_a_ref_file_is_noticed() -> None:
    data = ref.ref_to_bytes(ONE)
    for position in range(len(data) * 8):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        try:
            assert ref.ref_from_bytes(bytes(changed)) != ONE
        except MalformedError:
            continue


def test_head_names_a_branch_or_a_commit() -> None:
    for head in (Head("refs/heads/main"), Head("refs/heads/模型"), Head(None, ONE)):
        assert Head.from_bytes(head.to_bytes()) == head
    with pytest.raises(MalformedError):
        Head(None).to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"ref: refs/heads/main",
        b"ref: refs/tags/v1\n",
        b"ref: refs/heads/../x\n",
        b"ref:refs/heads/main\n",
        b"ref: refs/heads/\xff\n",
        b"ref: refs/heads/a\nb\n",
        b"ref: config.toml\n",
        b"main\n",
    ],
)
def test_damaged_heads_are_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Head.from_bytes(data)


def test_a_log_line_is_one_line() -> None:
    line = LogLine(None, ONE, 5, "Ann\n<a>", "first\nsecond\r\u2028")
    data = line.to_bytes()
    assert data.count(b"\n") == 1
    assert data.endswith(b"\n")
    assert len(data.splitlines()) == 1
    assert LogLine.from_bytes(data) == line


CHANGES: list[dict[str, object]] = [
    {"old": 5},
    {"old": "x"},
    {"old": ""},
    {"old": False},
    {"new": [ONE.hex()]},
    {"time_us": "5"},
    {"time_us": 1.5},
    {"time_us": True},
    {"time_us": float("inf")},
    {"author": None},
    {"message": {}},
]
SOUND: dict[str, object] = {"old": None, "new": ONE.hex(), "time_us": 5, "author": "a", "message": "m"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"5",
        b"null",
        b"[" * 100_000,
        b"\xff",
        b'{"old":',
        *(json.dumps({**SOUND, **change}).encode() for change in CHANGES),
    ],
)
def test_torn_and_foreign_log_lines_are_refused(line: bytes) -> None:
    with pytest.raises(MalformedError):
        LogLine.from_bytes(line)


def test_the_listing_of_refs() -> None:
    refs = {"refs/tags/v1": TWO, "refs/heads/main": ONE}
    assert ref.refs_from_bytes(ref.refs_to_bytes("refs/heads/main", refs)) == ("refs/heads/main", refs)
    assert ref.refs_from_bytes(ref.refs_to_bytes(None, {})) == (None, {})


def test_a_flipped_bit_in_a_listing_is_noticed() -> None:
    refs = {f"refs/heads/{name}": CommitId(bytes([number]) * 32) for number, name in enumerate(("main", "exp"))}
    written = ref.refs_to_bytes("refs/heads/main", refs)
    for place in range(len(written)):
        data = bytearray(written)
        data[place] ^= 1
        try:
            found = ref.refs_from_bytes(bytes(data))
        except (MalformedError, UnsupportedVersionError):
            continue
        assert found == ("refs/heads/main", refs), bytes(data)


def test_the_listing_of_packs() -> None:
    packs = [PackSize(PackId(b"\5" * 32), 100), PackSize(PackId(b"\6" * 32), 1 << 30)]
    assert ref.packs_from_bytes(ref.packs_to_bytes(packs)) == packs


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        5,
        {},
        {"version": 1},
        {"version": "1", "refs": {}, "packs": []},
        {"version": True, "refs": {}, "packs": []},
        {"version": 1, "refs": [], "packs": {}},
        {"version": 1, "refs": {"refs/heads/../x": ONE.hex()}, "packs": [5]},
        {"version": 1, "refs": {"refs/heads/x": 5}, "packs": [{"id": ONE.hex()}]},
        {"version": 1, "refs": {"refs/heads/\ud800": ONE.hex()}, "packs": [{"id": ONE.hex(), "size": 0}]},
        {"version": 1, "refs": {}, "head": "refs/tags/x", "packs": [{"id": ONE.hex(), "size": 1.5}]},
        {"version": 1, "refs": {}, "head": 5, "packs": [{"id": ONE.hex(), "size": True}]},
        {"version": 1, "refs": {}, "head": "refs/heads/..", "packs": [{"id": "../../x", "size": 1}]},
        {"version": 1, "refs": None, "packs": [{"id": ONE.hex(), "size": (1 << 30) + 1}]},
    ],
)
def test_listings_of_an_enemy(value: object) -> None:
    data = json.dumps(value).encode()
    with pytest.raises(MalformedError):
        ref.refs_from_bytes(data)
    if isinstance(value, dict) and value.get("packs") == {}:
        assert ref.packs_from_bytes(data) == []
    else:
        with pytest.raises(MalformedError):
            ref.packs_from_bytes(data)


def test_listings_that_are_no_json_or_newer() -> None:
    for data in (b"", b"\xff", b"[" * 100_000):
        with pytest.raises(MalformedError):
            ref.refs_from_bytes(data)
    for parse in (ref.refs_from_bytes, ref.packs_from_bytes):
        with pytest.raises(UnsupportedVersionError):
            parse(b'{"version":2,"refs":{},"packs":[]}')
