"""Inode numbers and attributes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from shardfs.formats.ids import ChunkId, ManifestId, TreeId
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry
from shardfs.mount.nodes import Attr, derived_ino, hashed_ino
from shardfs.staging.nodes import derived_ino as staged_ino
from shardfs.staging.nodes import new_ino

ID = b"\x01" * 32


def test_numbers_depend_on_content_kind_and_executable_bit_only() -> None:
    entries = (
        FileEntry(b"a", 1, False, ChunkId(ID)),
        FileEntry(b"a", 1, True, ChunkId(ID)),
        FileEntry(b"a", 1, False, None, ManifestId(ID)),
        FileEntry(b"a", 0),
        DirEntry(b"a", TreeId(ID)),
        LinkEntry(b"a", ID.replace(b"\x01", b"x")),
    )
    assert len({derived_ino(entry) for entry in entries}) == len(entries)
    assert derived_ino(FileEntry(b"other", 1, False, ChunkId(ID))) == derived_ino(entries[0])


@given(st.binary(max_size=40), st.integers(0, 2**63 - 1))
def test_numbers_of_commits_and_of_staging_never_meet(key: bytes, parent: int) -> None:
    number = hashed_ino(key)
    assert 1 << 33 <= number < 1 << 63
    assert not number & 1 << 32
    assert new_ino() & 1 << 32
    assert staged_ino(parent, key) & 1 << 32


@given(st.integers(0, 2**50))
def test_blocks_cover_the_size(size: int) -> None:
    blocks = Attr(1, 0o100444, size, 0).blocks
    assert (blocks - 1) * 512 < size <= blocks * 512
