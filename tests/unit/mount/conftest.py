from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource


@pytest.fixture
def source(tmp_path: Path) -> Iterator[MemorySource]:
    """A repository in memory with two versions on main."""
    found = MemorySource(tmp_path / "store")
    found.put({(b"a.txt",): b"one\n", (b"d", b"run"): (b"#!/bin/sh\n", True), (b"d", b"link"): "../a.txt"}, "initial")
    found.put({(b"a.txt",): b"two\n", (b"e",): None, (b"empty",): b""}, "second")
    yield found
    found.close()


@pytest.fixture
def vfs(source: MemorySource) -> Iterator[Vfs]:
    found = Vfs(source, who="a test")
    yield found
    found.close()
