"""Open files of commits."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

import pytest

from shardfs.formats.tree import FileEntry
from shardfs.mount.source import Content
from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource, commit_path


class Slow:
    """A content that somebody else takes up meanwhile, and that counts how many of them are in use."""

    def __init__(self, used: list[Slow], meanwhile: Callable[[], object]) -> None:
        self._used = used
        used.append(self)
        meanwhile()

    def read_at(self, _offset: int, _size: int, /) -> bytes:
        return b"four"

    def pieces_at(self, _offset: int, _size: int, /) -> list[bytes]:
        return [b"four"]

    def is_ready(self, _offset: int, _size: int, /) -> bool:
        return False

    def close(self) -> None:
        self._used.remove(self)


def opens_slowly(source: MemorySource, used: list[Slow], meanwhile: Callable[[], object]) -> None:
    def open_entry(_entry: FileEntry, _path: bytes = b"", /) -> Content:
        return Slow(used, meanwhile)

    source.open_entry = open_entry  # type: ignore[method-assign]


@pytest.fixture
def used() -> list[Slow]:
    return []


def test_a_file_that_two_threads_read_first_is_let_go_of(source: MemorySource, vfs: Vfs, used: list[Slow]) -> None:
    both = threading.Barrier(2)
    opens_slowly(source, used, lambda: both.wait(10))
    handle = vfs.open(vfs.resolve(commit_path(source.refs["main"]) + b"/a.txt"), os.O_RDONLY)
    found: list[bytes] = []
    threads = [threading.Thread(target=lambda: found.append(vfs.read(handle, 0, 4))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"four"] * 2
    vfs.release(handle)
    assert not used


def test_a_file_whose_reader_was_killed_is_let_go_of(source: MemorySource, vfs: Vfs, used: list[Slow]) -> None:
    handle = vfs.open(vfs.resolve(commit_path(source.refs["main"]) + b"/a.txt"), os.O_RDONLY)
    opens_slowly(source, used, handle.release)
    assert handle.read(0, 4) == b"four"
    assert not used
