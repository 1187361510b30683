"""Files that are changed in place are committed with the bytes, and cut as, a file that was written anew would be."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

import shardfs
from shardfs.formats.tree import FileEntry
from shardfs.repository import Repository
from shardfs.staging.area import Area, AreaFile

MEMORY = Path("/dev/shm")
KIB = 1 << 10
PLACES = st.floats(0, 1)  # of the size
LENGTHS = st.sampled_from([1, 100, 4 * KIB, 300 * KIB, 2000 * KIB])
OPERATIONS = st.one_of(
    st.tuples(st.just("write"), PLACES, LENGTHS),
    st.tuples(st.just("write"), PLACES, LENGTHS),
    st.tuples(st.just("same"), PLACES, LENGTHS),
    st.tuples(st.just("append"), st.just(1.0), LENGTHS),
    st.tuples(st.just("truncate"), PLACES, st.just(0)),
    st.tuples(st.just("extend"), st.just(1.0), LENGTHS),
    st.tuples(st.just("fsync"), st.just(0.0), st.just(0)),
    st.tuples(st.just("reopen"), st.just(0.0), st.just(0)),
)


def noise(seed: int) -> bytes:
    """Bytes of no known layout, with zeros in between."""
    chance = random.Random(seed)
    return chance.randbytes(3000 * KIB) + bytes(1500 * KIB) + chance.randbytes(4000 * KIB)


def tensors(seed: int) -> bytes:
    """A safetensors file with large and small tensors."""
    chance = random.Random(seed)
    header, data, end = {}, [], 0
    for number, length in enumerate((2500 * KIB, 4 * KIB, 600 * KIB, 64 * KIB, 5000 * KIB)):
        header[f"layer.{number}.weight"] = {
            "dtype": "F32", "shape": [length // 4 // KIB, KIB], "data_offsets": [end, end + length],
        }  # fmt: skip
        data.append(chance.randbytes(length))
        end += length
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(data)


@contextmanager
def two_repositories() -> Iterator[tuple[Repository, Repository]]:
    folder = Path(tempfile.mkdtemp(prefix="layers", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        with shardfs.init(folder / "one") as one, shardfs.init(folder / "two") as two:
            yield one, two
    finally:
        shutil.rmtree(folder)


def stored(repo: Repository) -> FileEntry:
    """The one file of the tip."""
    found = repo.entry("HEAD", "file")
    assert isinstance(found, FileEntry)
    return found


def commit_anew(repo: Repository, data: bytes) -> None:
    """Commit a work tree whose file was written anew."""
    assert repo.root is not None
    (repo.root / "file").write_bytes(data)
    repo.add([repo.root / "file"])
    repo.commit("anew", allow_empty=True)


class InPlace:
    """A file that is open in a staging area, and the bytes that it should have."""

    def __init__(self, area: Area, data: bytes) -> None:
        self.area = area
        self.data = bytearray(data)
        self.file = self._open()

    def _open(self) -> AreaFile:
        return self.area.open_file(self.area.lookup(self.area.root, b"file").ino, os.O_RDWR)

    def apply(self, operation: str, place: float, length: int, chance: random.Random) -> None:
        offset = int(place * len(self.data))
        if operation in ("write", "append", "same"):
            new = chance.randbytes(length)
            if operation == "same":
                new = bytes(self.data[offset : offset + length])
            self.file.write(offset, new)
            self.data[offset : offset + len(new)] = new
        elif operation in ("truncate", "extend"):
            self.file.truncate(offset + length)
            self.data[offset:] = bytes(length)
        elif operation == "fsync":
            self.file.fsync()
        elif operation == "reopen":
            self.file.release()
            self.file = self._open()
        start = max(0, offset - 100)
        assert self.file.read(start, length + 200) == self.data[start : start + length + 200]


@settings(max_examples=12, deadline=None)
@given(
    rounds=st.lists(st.lists(OPERATIONS, max_size=6), min_size=1, max_size=3),
    kind=st.sampled_from([noise, tensors]),
    seed=st.integers(0, 3),
)
@example(rounds=[[("write", 0.9, 100)], [("append", 1.0, 100)], [("truncate", 0.5, 0), ("extend", 1.0, 2000 * KIB)]],
         kind=noise, seed=1)  # fmt: skip
@example(rounds=[[("write", 0.0, 1), ("fsync", 0.0, 0), ("write", 0.5, 1)]], kind=tensors, seed=1)
def test_changes_in_place_are_committed_as_if_written_anew(
    rounds: list[list[tuple[str, float, int]]], kind: object, seed: int
) -> None:
    assert callable(kind)
    chance = random.Random(seed)
    data = kind(seed)
    with two_repositories() as (one, two):
        for repo in (one, two):
            commit_anew(repo, data)
        one.area().start_session("test")
        for operations in rounds:
            file = InPlace(one.area(), data)
            for operation in operations:
                file.apply(*operation, chance)
            file.file.release()
            data = bytes(file.data)
            one.commit("in place", allow_empty=True)
            commit_anew(two, data)
            assert one.open_entry(stored(one)).read_at(0, len(data) + 1) == data
            assert stored(one) == stored(two)
