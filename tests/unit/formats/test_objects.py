"""Ids, canonical bytes, commits, manifests and trees, as callers see them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from blake3 import blake3

from shardfs.errors import FormatError, MalformedError, UnsupportedVersionError
from shardfs.formats import canonical
from shardfs.formats.commit import MAX_PARENTS, Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, TreeId, chunk_id, content_id, from_hex, object_id
from shardfs.formats.manifest import MAX_CHUNK_SIZE, ChunkRef, Manifest, Media
from shardfs.formats.tree import EMPTY_TREE, DirEntry, FileEntry, LinkEntry, Tree, TreeEntry, check_name

ONE = "11" * 32
TWO = "22" * 32
DEEP = 900  # levels: more than any error message may follow, less than the parser refuses by itself


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def _object(kind: str, **members: Any) -> bytes:
    return canonical.dumps({"type": kind, "version": 1, **members})


def test_a_chunk_id_is_what_b3sum_prints() -> None:
    assert chunk_id(b"abc").hex() == blake3(b"abc").hexdigest()
    assert content_id(Kind.CHUNK, b"abc") == chunk_id(b"abc")


def test_the_same_bytes_have_another_id_as_each_kind() -> None:
    assert len({content_id(kind, b"{}") for kind in Kind}) == 4
    assert content_id(Kind.TREE, b"{}") == object_id(Kind.TREE, b"{}")


@pytest.mark.parametrize(
    "text", ["", "1", ONE + "1", ONE[:-1], ONE.upper().replace("1", "A"), f" {ONE}", ONE + "\n", 5, None, [ONE]]
)
def test_hex_ids_are_strict(text: object) -> None:
    with pytest.raises(MalformedError, match="64 lower-case"):
        from_hex(text)


def test_the_documented_example() -> None:
    assert EMPTY_TREE.to_bytes() == b'{"entries":[],"type":"tree","version":1}'
    assert EMPTY_TREE.id.hex() == "bc67655d2e345bc2184b2fca13c2ea489e4629414f2be32b2bc1e7c699a5e1ad"


@pytest.mark.parametrize(
    "value", [{"a": 2**53}, {"a": float("nan")}, {"a": "\ud800"}, {"a": float("inf")}, {"\ud800": 1}, {"a": object()}]
)
def test_what_has_no_canonical_form_is_refused(value: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="canonical"):
        canonical.dumps(value)


@pytest.mark.parametrize("data", [b"", b"[]", b"5", b"\xff", b'{"type":"tree"', b"[" * 100_000, b'{"a":' * 50_000])
@pytest.mark.parametrize("parse", [Commit.from_bytes, Manifest.from_bytes, Tree.from_bytes])
def test_what_is_no_object_is_refused(parse: Any, data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(data)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_version_is_named_as_such(version: int) -> None:
    data = canonical.dumps({"type": "tree", "version": version, "entries": []})
    with pytest.raises(UnsupportedVersionError, match=f"version {version}"):
        Tree.from_bytes(data)


@pytest.mark.parametrize("version", ["true", "1.0", '"1"', "null", "-1", _nested(DEEP)])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(FormatError):
        Tree.from_bytes(b'{"entries":[],"type":"tree","version":' + version.encode() + b"}")


@pytest.mark.parametrize(
    "data",
    [
        b'{"entries": [],"type":"tree","version":1}',
        b'{"type":"tree","entries":[],"version":1}',
        b'{"entries":[],"entries":[],"type":"tree","version":1}',
        b'\xef\xbb\xbf{"entries":[],"type":"tree","version":1}',
        b'{"entries":[],"type":"tr\\u0065e","version":1}',
        b'{"entries":[],"type":"tree","version":1}\n',
    ],
)
def test_only_canonical_bytes_are_a_tree(data: bytes) -> None:
    with pytest.raises(MalformedError):
        Tree.from_bytes(data)


def test_deep_values_are_refused_at_any_depth_of_the_stack() -> None:
    for depth in range(50, 1000, 50):
        for field in ("size", "chunks"):
            data = b'{"%s":%s,"type":"manifest","version":1}' % (field.encode(), _nested(depth).encode())
            with pytest.raises(MalformedError):
                Manifest.from_bytes(data)
        with pytest.raises(MalformedError):
            Tree.from_bytes(b'{"entries":[{"kind":%s,"name":"a"}],"type":"tree","version":1}' % _nested(depth).encode())


# Commits


def test_a_commit_and_its_bytes() -> None:
    commit = Commit(
        TreeId(bytes(32)),
        (CommitId(b"\1" * 32), CommitId(b"\2" * 32)),
        "Ann <a@example.org>",
        -5,
        "subject\n\nbody é\n",
        {"epoch": 3, "loss": 0.25, "tags": ["a", None]},
        {"code": {"git": "f" * 40, "dirty": True}},
        TreeId(b"\3" * 32),
    )
    assert Commit.from_bytes(commit.to_bytes()) == commit
    assert Commit.from_bytes(commit.to_bytes()).id == commit.id
    assert commit.subject == "subject"
    assert json.loads(commit.to_bytes())["message"] == "subject\n\nbody é\n"


@pytest.mark.parametrize(
    "change",
    [
        {"parents": [ONE] * (MAX_PARENTS + 1)},
        {"parents": ONE},
        {"parents": [1]},
        {"tree": "x"},
        {"tree": None},
        {"author": 5},
        {"message": None},
        {"meta": []},
        {"auto": "x"},
        {"time_us": 1.5},
        {"time_us": True},
        {"time_us": "1"},
        {"attachments": "x"},
        {"extra": 1},
    ],
)
def test_broken_commits_are_refused(change: dict[str, Any]) -> None:
    sound = {"tree": ONE, "parents": [], "author": "a", "time_us": 0, "message": "", "meta": {}, "auto": {}}
    assert Commit.from_bytes(_object("commit", **sound)).tree.hex() == ONE
    with pytest.raises(MalformedError):
        Commit.from_bytes(_object("commit", **{**sound, **change}))


@pytest.mark.parametrize(("author", "message"), [("\ud800", ""), ("", "a\udfff")])
def test_a_commit_with_half_a_character_has_no_bytes(author: str, message: str) -> None:
    with pytest.raises(MalformedError, match="canonical"):
        Commit(TreeId(bytes(32)), (), author, 0, message).to_bytes()


# Manifests


def test_a_manifest_and_its_bytes() -> None:
    chunks = (ChunkRef(ChunkId(b"\1" * 32), MAX_CHUNK_SIZE), ChunkRef(ChunkId(b"\2" * 32), 1))
    manifest = Manifest(MAX_CHUNK_SIZE + 1, chunks, Media("safetensors", "pytorch", 3, 1000))
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest
    assert Manifest.from_bytes(Manifest(0, ()).to_bytes()).chunks == ()


@pytest.mark.parametrize(
    "change",
    [
        {"size": 4},
        {"size": -3},
        {"size": 3.5},
        {"size": True, "chunks": [[ONE, 1]]},
        {"chunks": [[ONE, 0], [TWO, 3]]},
        {"chunks": [[ONE, -1], [TWO, 4]]},
        {"chunks": [[ONE, MAX_CHUNK_SIZE + 1]], "size": MAX_CHUNK_SIZE + 1},
        {"chunks": [[ONE, 3, 0]]},
        {"chunks": [ONE]},
        {"chunks": {}},
        {"media": {}},
        {"media": {"format": 1}},
        {"media": {"format": "x", "tensors": -1}},
        {"media": {"format": "x", "more": 1}},
        {"media": None},
        {"more": 1},
    ],
)
def test_broken_manifests_are_refused(change: dict[str, Any]) -> None:
    sound = {"size": 3, "chunks": [[ONE, 1], [TWO, 2]]}
    assert Manifest.from_bytes(_object("manifest", **sound)).size == 3
    with pytest.raises(MalformedError):
        Manifest.from_bytes(_object("manifest", **{**sound, **change}))


# Trees

NAMES = [
    b"a",
    b"A",
    b" ",
    b"\n",
    b"-rf",
    b"caf\xc3\xa9",
    b"\xff\xfe",
    b"x" * 255,
    b"..a",
    b"...",
    b"a\\b",
    b"\x7f",
    b"CON",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_that_linux_takes_is_kept(name: bytes) -> None:
    tree = Tree.of([FileEntry(name, 0)])
    assert Tree.from_bytes(tree.to_bytes()).entries[0].name == name


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/", b"a\0", b"x" * 256, b"../../etc/passwd"])
def test_hostile_names_are_refused(name: bytes) -> None:
    with pytest.raises(MalformedError, match="not a file name"):
        check_name(name)
    with pytest.raises(MalformedError, match="not a file name"):
        Tree.of([FileEntry(name, 0)])


def test_entries_of_all_kinds_come_back_sorted_by_bytes() -> None:
    entries: list[TreeEntry] = [
        LinkEntry(b"z", b"../\xff target"),
        DirEntry(b"b", TreeId(b"\1" * 32)),
        FileEntry(b"\xff", 5, True, chunk=ChunkId(b"\2" * 32)),
        FileEntry(b"B", 1 << 40, manifest=ManifestId(b"\3" * 32)),
    ]
    tree = Tree.of(entries)
    assert [e.name for e in tree.entries] == [b"B", b"b", b"z", b"\xff"]
    assert Tree.from_bytes(tree.to_bytes()) == tree
    assert tree.by_name[b"z"] == entries[0]


def test_a_name_occurs_once() -> None:
    with pytest.raises(MalformedError, match="twice"):
        Tree.of([FileEntry(b"a", 0), DirEntry(b"a", TreeId(bytes(32)))])


@pytest.mark.parametrize(
    "entry",
    [
        {"name": "a", "kind": "file", "size": 1},
        {"name": "a", "kind": "file", "size": 0, "chunk": ONE},
        {"name": "a", "kind": "file", "size": 1, "chunk": ONE, "manifest": TWO},
        {"name": "a", "kind": "file", "size": MAX_CHUNK_SIZE + 1, "chunk": ONE},
        {"name": "a", "kind": "file", "size": 0, "executable": False},
        {"name": "a", "kind": "file", "size": 0, "executable": 1},
        {"name": "a", "kind": "file", "size": 0, "tree": ONE},
        {"name": "a", "kind": "dir"},
        {"name": "a", "kind": "dir", "tree": ONE, "size": 1},
        {"name": "a", "kind": "link"},
        {"name": "a", "kind": "link", "target": ""},
        {"name": "a", "kind": "link", "target": "x\0"},
        {"name": "a", "kind": "link", "target": "x" * 4096},
        {"name": "a", "kind": "device"},
        {"name": "a"},
        {"kind": "file", "size": 0},
        {"name": "a", "name64": "YQ==", "kind": "file", "size": 0},
        {"name64": "YQ==", "kind": "file", "size": 0},
        {"name64": "/x==", "kind": "file", "size": 0},
        {"name64": "//4", "kind": "file", "size": 0},
        {"name64": "ÿ", "kind": "file", "size": 0},
        {"name": 5, "kind": "file", "size": 0},
        "a",
    ],
)
def test_broken_entries_are_refused(entry: Any) -> None:
    with pytest.raises(MalformedError):
        Tree.from_bytes(_object("tree", entries=[entry]))


def test_entries_out_of_order_are_refused() -> None:
    entries = [{"name": n, "kind": "file", "size": 0} for n in ("b", "a")]
    with pytest.raises(MalformedError, match="canonical"):
        Tree.from_bytes(_object("tree", entries=entries))
