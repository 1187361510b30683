"""A clone with filters has what they pick, whatever they are, and nothing else."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shardfs
from shardfs.formats.tree import FileEntry
from shardfs.history.content import manifest_of
from shardfs.history.paths import show
from shardfs.transfer.filters import parse

FILES = {"a.json": 10, "config.json": 2000, "w/a.bin": 70_000, "w/b/a.json": 300, "w/b/c.bin": 5000, "x": 1}

globs = st.sampled_from(["*", "*.json", "w", "w/*", "w/b", "*/a.*", "x", "?", "nothing"])
sizes = st.sampled_from(["0", "1", "2", "1K", "5000", "1M"])
words = st.lists(st.one_of(globs.map("path={}".format), sizes.map("size<{}".format)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("origin")
    for name, size in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(os.urandom(size))
    store = folder.parent / f"{folder.name}-store"
    with shardfs.init(store, bare=True) as repo:
        repo.import_directory(folder, "all")
    return store


@settings(max_examples=15)
@given(words)
def test_what_is_picked_is_here(origin: Path, words: list[str]) -> None:
    wanted = parse(words)
    with tempfile.TemporaryDirectory() as folder, shardfs.clone(str(origin), Path(folder) / "c", filters=words) as repo:
        entries = {show(path): entry for path, entry in repo.walk("HEAD") if isinstance(entry, FileEntry)}
        assert {path: entry.size for path, entry in entries.items()} == FILES
        ids = {path: {c.id for c in manifest_of(entry, repo.objects).chunks} for path, entry in entries.items()}
        here = {path for path in ids if repo.store.index.has(ids[path], local=True) == ids[path]}
        assert here == {path for path, size in FILES.items() if wanted.takes(path, size)}
