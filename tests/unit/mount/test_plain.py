"""Reading plain files on behalf of the kernel."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.formats.ids import chunk_id
from shardfs.mount.nodes import Handle
from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource, commit_path, content

DATA = b"0123456789" * 10_000


@pytest.fixture
def path(source: MemorySource, tmp_path: Path) -> bytes:
    """A committed file, of which there is a plain file."""
    commit = source.put({(b"file",): DATA})
    source.plain[chunk_id(DATA)] = tmp_path / "plain"
    (tmp_path / "plain").write_bytes(DATA)
    return commit_path(commit) + b"/file"


@contextmanager
def opened(vfs: Vfs, path: bytes) -> Iterator[Handle]:
    handle = vfs.open(vfs.resolve(path), os.O_RDONLY)
    yield handle
    vfs.release(handle)


def test_the_plain_file_is_read_and_nothing_is_noted(vfs: Vfs, source: MemorySource, path: bytes) -> None:
    assert content(vfs, path) == DATA
    assert source.served == []


def test_without_a_plain_file_reads_are_noted(vfs: Vfs, source: MemorySource, path: bytes) -> None:
    source.plain.clear()
    with opened(vfs, path) as handle:
        assert handle.backing() is None
        assert vfs.read(handle, 5, 10) == DATA[5:15]
    assert [size for _, size in source.served] == [10]


@pytest.mark.parametrize("damage", [lambda p: os.truncate(p, 50_000), lambda p: os.truncate(p, 0)])
def test_a_plain_file_that_is_too_short_is_not_believed(vfs: Vfs, path: bytes, tmp_path: Path, damage: object) -> None:
    with opened(vfs, path) as handle:
        damage(tmp_path / "plain")  # type: ignore[operator]
        assert vfs.read(handle, 40_000, 30_000) == DATA[40_000:70_000]
        assert not vfs.is_ready(handle, 40_000, 30_000)


def test_a_plain_file_that_was_removed_is_read_on(vfs: Vfs, source: MemorySource, path: bytes, tmp_path: Path) -> None:
    with opened(vfs, path) as handle:
        (tmp_path / "plain").unlink()
        source.plain.clear()
        assert vfs.read(handle, 0, len(DATA)) == DATA


def test_descriptors_are_closed(vfs: Vfs, path: bytes) -> None:
    with opened(vfs, path) as handle:
        fd = handle.backing()
        assert fd is not None
        os.fstat(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@given(
    st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, len(DATA) + 10), st.integers(0, 3000)), max_size=30)
)
def test_two_open_files_and_looking_ahead_never_mix_up_bytes(steps: list[tuple[bool, bool, int, int]]) -> None:
    with tempfile.TemporaryDirectory() as name:
        source = MemorySource(Path(name) / "store")
        other = DATA[::-1]
        commit = commit_path(source.put({(b"file",): DATA, (b"other",): other}))
        for data, plain in ((DATA, Path(name) / "a"), (other, Path(name) / "b")):
            plain.write_bytes(data)
            source.plain[chunk_id(data)] = plain
        vfs = Vfs(source)
        with opened(vfs, commit + b"/file") as one, opened(vfs, commit + b"/other") as two:
            for first, looks, offset, size in steps:
                handle, data = (one, DATA) if first else (two, other)
                if looks:
                    vfs.is_ready(handle, offset, size)
                else:
                    assert b"".join(vfs.read_pieces(handle, offset, size)) == data[offset : offset + size]
        vfs.close()
        source.close()
