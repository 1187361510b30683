"""Every format: what is written is read, one value has one form, and no bytes make anything but a FormatError."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shardfs.errors import FormatError
from shardfs.formats import canonical, pack, ref, wire
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, PackId, TreeId
from shardfs.formats.manifest import MAX_CHUNK_SIZE, ChunkRef, Manifest, Media, Span
from shardfs.formats.pack import HEADER, TRAILER_SIZE, Entry
from shardfs.formats.ref import Head, LogLine, PackSize
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, Tree, TreeEntry

IDS = st.binary(min_size=32, max_size=32)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(-(2**53) + 1, 2**53 - 1)
COUNTS = st.none() | st.integers(0, 2**53 - 1)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats(-1e9, 1e9) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
MEDIA = st.builds(Media, TEXTS, st.none() | TEXTS, COUNTS, COUNTS)
NAMES = st.binary(min_size=1, max_size=255).filter(lambda n: n not in (b".", b"..") and not {0, 47} & set(n))


@st.composite
def manifests(draw: st.DrawFn, most: int = MAX_CHUNK_SIZE) -> Manifest:
    chunks = draw(st.lists(st.builds(ChunkRef, IDS.map(ChunkId), st.integers(1, most)), max_size=8))
    return Manifest(sum(c.size for c in chunks), tuple(chunks), draw(st.none() | MEDIA))


@st.composite
def entries(draw: st.DrawFn) -> TreeEntry:
    name = draw(NAMES)
    match draw(st.sampled_from(["empty", "chunk", "manifest", "dir", "link"])):
        case "empty":
            return FileEntry(name, 0, draw(st.booleans()))
        case "chunk":
            size = draw(st.integers(1, MAX_CHUNK_SIZE))
            return FileEntry(name, size, draw(st.booleans()), chunk=ChunkId(draw(IDS)))
        case "manifest":
            size = draw(st.integers(1, 2**53 - 1))
            return FileEntry(name, size, draw(st.booleans()), manifest=ManifestId(draw(IDS)))
        case "dir":
            return DirEntry(name, TreeId(draw(IDS)))
        case _:
            return LinkEntry(name, draw(st.binary(min_size=1, max_size=300).filter(lambda t: 0 not in t)))


TREES = st.lists(entries(), max_size=8, unique_by=lambda e: e.name)
COMMITS = st.builds(
    Commit,
    IDS.map(TreeId),
    st.lists(IDS.map(CommitId), max_size=4).map(tuple),
    TEXTS,
    NUMBERS,
    TEXTS,
    st.dictionaries(TEXTS, JSON, max_size=4),
    st.dictionaries(TEXTS, JSON, max_size=4),
    st.none() | IDS.map(TreeId),
)


def _refused_or(parse: Callable[[bytes], Any], data: bytes, right: object = None) -> None:
    """Parsing gives an error of the tree, or a value whose bytes are these and no others."""
    try:
        value = parse(data)
    except FormatError:
        return
    assert right is None or value == right or value.to_bytes() == data


def _flipped(data: bytes, bits: list[int]) -> bytes:
    changed = bytearray(data)
    for bit in bits:
        changed[bit // 8 % len(data)] ^= 1 << bit % 8
    return bytes(changed)


BITS = st.lists(st.integers(0, 2**20), min_size=1, max_size=3)
CUTS = st.integers(0, 2**12)


@given(manifests(), BITS, CUTS)
def test_manifests(value: Manifest, bits: list[int], cut: int) -> None:
    data = value.to_bytes()
    assert Manifest.from_bytes(data) == value
    assert Manifest.from_bytes(data).id == value.id
    _refused_or(Manifest.from_bytes, _flipped(data, bits), value)
    _refused_or(Manifest.from_bytes, data[:cut], value)


@given(TREES, st.randoms(), BITS, CUTS)
def test_trees(value: list[TreeEntry], shuffle: Any, bits: list[int], cut: int) -> None:
    tree = Tree.of(value)
    data = tree.to_bytes()
    assert Tree.from_bytes(data) == tree
    assert canonical.dumps(json.loads(data)) == data  # as the general writer has it
    assert sorted(tree.entries, key=lambda e: e.name) == list(tree.entries)
    shuffle.shuffle(value)
    assert Tree.of(value).to_bytes() == data  # one directory, one form
    _refused_or(Tree.from_bytes, _flipped(data, bits), tree)
    _refused_or(Tree.from_bytes, data[:cut], tree)


@given(COMMITS, BITS, CUTS)
def test_commits(value: Commit, bits: list[int], cut: int) -> None:
    data = value.to_bytes()
    assert Commit.from_bytes(data) == value
    assert canonical.dumps(json.loads(data)) == data  # as the general writer has it
    assert "\n" not in value.subject
    _refused_or(Commit.from_bytes, _flipped(data, bits), value)
    _refused_or(Commit.from_bytes, data[:cut], value)


PARSERS: list[Callable[[bytes], Any]] = [
    Manifest.from_bytes,
    Tree.from_bytes,
    Commit.from_bytes,
    Head.from_bytes,
    LogLine.from_bytes,
    ref.ref_from_bytes,
    ref.refs_from_bytes,
    ref.packs_from_bytes,
    pack.parse_header,
    wire.ids_from_bytes,
    wire.error_from_bytes,
    wire.current_from_bytes,
    lambda data: wire.flags_from_bytes(data, 3),
    lambda data: pack.parse_trailer(data, 1000),
    lambda data: wire.parse_content_range(data.decode("latin-1")),
    lambda data: wire.parse_entity_tag(data.decode("latin-1")),
]
ALMOST_JSON = st.builds(
    lambda kind, members: b"{%s}" % b",".join([b'"type":"%s","version":1' % kind, *members]),
    st.sampled_from([b"tree", b"manifest", b"commit", b"refs"]),
    st.lists(
        st.builds(
            lambda key, value: b'"%s":%s' % (key, value),
            st.sampled_from([b"entries", b"size", b"chunks", b"tree", b"old", b"new", b"refs", b"packs", b"current"]),
            st.sampled_from(
                [b"1", b"-1", b"1e400", b"NaN", b"[]", b"[1]", b"{}", b"null", b'""', b'"\\ud800"', b"1.0"]
            ),
        ),
        max_size=4,
    ),
)


@given(st.binary(max_size=200) | ALMOST_JSON, st.sampled_from(PARSERS))
def test_arbitrary_bytes_make_nothing_but_format_errors(data: bytes, parse: Callable[[bytes], Any]) -> None:
    _refused_or(parse, data)


# Packs


@st.composite
def payloads(draw: st.DrawFn) -> tuple[list[Entry], int]:
    position, found = len(HEADER), []
    for _ in range(draw(st.integers(0, 6))):
        stored = draw(st.integers(0, 1000))
        bases = tuple(draw(st.lists(IDS.filter(any), max_size=2)))
        raw, kind, codec = draw(st.integers(stored, 2000)), draw(st.sampled_from(Kind)), draw(st.integers(0, 255))
        found.append(Entry(draw(IDS), kind, codec, position, stored, raw, bases))
        position += stored
    return found, position


def _parse_tail(tail: bytes, offset: int) -> list[Entry]:
    trailer = pack.parse_trailer(tail[-TRAILER_SIZE:], offset + len(tail))
    return pack.parse_table(tail[: trailer.table_size], trailer)


@given(payloads(), st.data())
def test_tails_of_packs(value: tuple[list[Entry], int], data: st.DataObject) -> None:
    listed, end = value
    tail = pack.tail_to_bytes(listed, end)
    assert _parse_tail(tail, end) == listed
    for bit in data.draw(st.lists(st.integers(0, len(tail) * 8 - 1), min_size=20, max_size=20)):
        try:
            assert _parse_tail(_flipped(tail, [bit]), end) == listed
        except FormatError:
            continue


def test_every_single_bit_of_a_tail_is_noticed() -> None:
    listed = [Entry(bytes([i]) * 32, Kind.CHUNK, 0, 16 + 10 * i, 10, 10) for i in range(3)]
    tail = pack.tail_to_bytes(listed, 46)
    for bit in range(len(tail) * 8):
        try:
            _parse_tail(_flipped(tail, [bit]), 46)
        except FormatError:
            continue
        raise AssertionError(bit)


# Refs

COMMIT_IDS = IDS.map(CommitId)
REF_NAMES = st.text(min_size=1, max_size=40).map("refs/heads/".__add__).filter(ref.is_ref_name)


@given(REF_NAMES, COMMIT_IDS)
def test_head_and_refs(name: str, commit: CommitId) -> None:
    assert ref.ref_from_bytes(ref.ref_to_bytes(commit)) == commit
    for head in (Head(name), Head(None, commit)):
        assert Head.from_bytes(head.to_bytes()) == head


@given(st.none() | COMMIT_IDS, st.none() | COMMIT_IDS, st.integers(), st.text(), st.text())
def test_log_lines(old: CommitId | None, new: CommitId | None, time_us: int, author: str, message: str) -> None:
    line = LogLine(old, new, time_us, author, message)
    assert LogLine.from_bytes(line.to_bytes()) == line
    assert len(line.to_bytes().splitlines()) == 1


@given(st.dictionaries(REF_NAMES, COMMIT_IDS), st.none() | REF_NAMES, BITS)
def test_listings_of_refs(refs: dict[str, CommitId], head: str | None, bits: list[int]) -> None:
    data = ref.refs_to_bytes(head, refs)
    assert ref.refs_from_bytes(data) == (head, refs)
    _refused_or(ref.refs_from_bytes, _flipped(data, bits))


@given(st.lists(st.builds(PackSize, IDS.map(PackId), st.integers(1, pack.MAX_PACK_SIZE))), BITS)
def test_listings_of_packs(packs: list[PackSize], bits: list[int]) -> None:
    data = ref.packs_to_bytes(packs)
    assert ref.packs_from_bytes(data) == packs
    _refused_or(ref.packs_from_bytes, _flipped(data, bits))


# Ranges of files


@given(manifests(most=20), st.integers(0, 200), st.integers(0, 200))
def test_locate_against_one_byte_at_a_time(manifest: Manifest, offset: int, length: int) -> None:
    bytes_ = [(chunk, i) for chunk in manifest.chunks for i in range(chunk.size)][offset : offset + length]
    spans = list(manifest.locate(offset, length))
    assert [(s.chunk, i) for s in spans for i in range(s.start, s.end)] == bytes_
    assert all(isinstance(s, Span) and 0 <= s.start < s.end <= s.chunk.size for s in spans)
    assert len(spans) <= len(manifest.chunks)
