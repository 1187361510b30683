"""Contents of files: ranges, and the file object that torch and safetensors get."""

from __future__ import annotations

import io
import os
import random
import zipfile
from dataclasses import replace

import pytest

from shardfs.errors import ChunkNotFoundError, ObjectCorruptedError
from shardfs.formats.manifest import ChunkRef
from shardfs.formats.tree import FileEntry
from shardfs.history.content import ContentFile, FileReader, manifest_of
from shardfs.history.objects import Objects
from tests.memory_objects import Memory
from tests.stores import noise

DATA = noise(1, 1000)


@pytest.fixture
def memory() -> Memory:
    return Memory()


def _reader(memory: Memory, data: bytes = DATA, size: int = 64) -> FileReader:
    return FileReader(memory.put_file(b"f", data, size), Objects(memory), memory)


@pytest.mark.parametrize("data", [b"", b"x", DATA[:64], DATA])
def test_any_range(memory: Memory, data: bytes) -> None:
    reader = _reader(memory, data)
    assert reader.size == len(data)
    for offset in (0, 1, 63, 64, 65, 500, 999, 1000, 5000):
        for size in (0, 1, 64, 65, 5000):
            assert reader.read_at(offset, size) == data[offset : offset + size]
    assert b"".join(reader.blocks()) == data


def test_only_the_chunks_of_the_range_are_read(memory: Memory) -> None:
    reader = _reader(memory)
    memory.reads.clear()
    reader.read_at(64, 64)
    assert len(memory.reads) == 1
    reader.read_at(63, 2)
    assert len(memory.reads) == 3


def test_what_is_near_is_read_before_anybody_is_asked(memory: Memory) -> None:
    """A whole copy on this disk that nobody checked yet, and a remote that is silent."""
    entry = memory.put_file(b"f", DATA, 64)
    bad = manifest_of(entry, Objects(memory)).chunks[3].id

    def near(_: FileEntry, chunk: ChunkRef, offset: int) -> bytes | None:
        return None if chunk.id == bad else DATA[offset : offset + chunk.size]

    reader = FileReader(entry, Objects(memory), memory, near=near)
    memory.reads.clear()
    assert reader.read_at(0, len(DATA)) == DATA
    assert memory.reads == [bad]


def test_pieces_are_what_a_read_gives_and_tell_what_is_in_memory(memory: Memory) -> None:
    entry = memory.put_file(b"f", DATA, 64)
    here = {chunk.id for chunk in manifest_of(entry, Objects(memory)).chunks[:2]}
    reader = FileReader(entry, Objects(memory), memory, holds=here.__contains__)
    pieces = reader.pieces_at(60, 100)
    assert [len(piece) for piece in pieces] == [4, 64, 32]
    assert b"".join(pieces) == reader.read_at(60, 100)
    assert reader.is_ready(0, 128)
    assert not reader.is_ready(0, 129)
    assert reader.is_ready(5000, 10)


def test_a_manifest_of_another_size_is_damage(memory: Memory) -> None:
    entry = memory.put_file(b"f", DATA, 64)
    with pytest.raises(ObjectCorruptedError, match="tree says 999"):
        manifest_of(replace(entry, size=999), Objects(memory))


def test_a_missing_chunk_is_named(memory: Memory) -> None:
    reader = _reader(memory)
    memory.data.clear()
    with pytest.raises(ChunkNotFoundError):
        reader.read_at(0, 10)
    assert FileReader(FileEntry(b"e", 0), Objects(memory), memory).read_at(0, 10) == b""


def test_it_is_a_file_like_any_other(memory: Memory) -> None:
    ours, other = ContentFile(_reader(memory), "model.pt"), io.BytesIO(DATA)
    assert (ours.name, ours.readable(), ours.seekable(), ours.writable()) == ("model.pt", True, True, False)
    choice = random.Random(5)
    for _ in range(300):
        if choice.random() < 0.5:
            whence, target = choice.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END]), choice.randrange(1200)
            base = {os.SEEK_SET: 0, os.SEEK_CUR: other.tell(), os.SEEK_END: len(DATA)}[whence]
            assert ours.seek(target - base, whence) == other.seek(target - base, whence) == target
        else:
            size = choice.choice([-1, 0, 1, 10, 100, 2000])
            assert ours.read(size) == other.read(size)
        assert ours.tell() == other.tell()
    with pytest.raises(ValueError, match="negative"):
        ours.seek(-len(DATA) - 1, os.SEEK_END)
    with pytest.raises(ValueError, match="whence"):
        ours.seek(0, 7)


def test_a_zip_archive_is_read_through_it(memory: Memory) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        writer.writestr("data", DATA)
    reader = _reader(memory, archive.getvalue())
    with zipfile.ZipFile(io.BufferedReader(ContentFile(reader, "x"))) as opened:
        assert opened.read("data") == DATA
