from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from shardfs.errors import FileChangedError, UnsupportedFileError
from shardfs.formats.ids import chunk_id
from shardfs.formats.tree import FileEntry, LinkEntry
from shardfs.staging.entries import Staged, Staging
from shardfs.staging.ingest import Ingest
from shardfs.staging.scan import Found, Scanner
from shardfs.staging.smallfiles import SmallFiles
from shardfs.staging.statcache import FILE_NAME, StatCache
from shardfs.store.store import Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / "store")
    yield made
    made.close()


def staged(root: Path, store: Store, found: list[Found] | None = None) -> list[Staged]:
    cache = StatCache(store.layout.root / FILE_NAME, store.index.packs())
    base = os.fsencode(root)
    with store.batch() as batch, Ingest(batch) as ingest:
        staging = Staging(base, SmallFiles(base, batch, lambda _: None), ingest, cache)
        entries = list(staging.stage(all_of(root) if found is None else found))
    cache.save(store.index.packs())
    return entries


def all_of(root: Path) -> list[Found]:
    return [found for folder in Scanner(root).scan() for found in folder.found()]


def test_files_and_links_become_entries(root: Path, store: Store) -> None:
    (root / "d").mkdir()
    (root / "d/run").write_text("#!/bin/sh")
    (root / "d/run").chmod(0o755)
    (root / "link").symlink_to("d/run")
    (root / "empty").touch()
    save_file({"a": torch.zeros(3)}, root / "m.safetensors", metadata={"format": "pt"})
    got = {each.path: each for each in staged(root, store)}
    assert got[b"d/run"].entry == FileEntry(b"run", 9, True, chunk_id(b"#!/bin/sh"))
    assert got[b"link"].entry == LinkEntry(b"link", b"d/run")
    assert got[b"empty"].entry == FileEntry(b"empty", 0)
    model = got[b"m.safetensors"].entry
    assert isinstance(model, FileEntry)
    assert model.manifest is not None
    assert got[b"d/run"].mtime_ns == (root / "d/run").stat().st_mtime_ns


def test_unchanged_files_are_not_read_again(root: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        (root / name).write_text(name)
    save_file({"a": torch.zeros(3)}, root / "m.safetensors")
    first = staged(root, store)
    assert all(each.was_read for each in first)
    (root / "b").write_text("B")
    second = staged(root, store)
    assert [each.path for each in second if each.was_read] == [b"b"]
    assert [each._replace(was_read=True) for each in second if each.path != b"b"] == [
        each for each in first if each.path != b"b"
    ]


def test_a_change_of_mode_alone_is_seen(root: Path, store: Store) -> None:
    (root / "a").write_text("a")
    staged(root, store)
    (root / "a").chmod(0o755)
    (got,) = staged(root, store)
    assert got.entry == FileEntry(b"a", 1, True, chunk_id(b"a"))


def test_contents_whose_pack_is_gone_are_read_again(root: Path, store: Store) -> None:
    (root / "a").write_text("a")
    staged(root, store)
    store.drop_packs(list(store.index.packs()))
    (got,) = staged(root, store)
    assert got.was_read
    assert store.find(chunk_id(b"a"))


def test_files_that_vanish_or_change_kind_are_named(root: Path, store: Store) -> None:
    for name in ("a", "b", "c"):
        (root / name).write_text(name)
    (root / "l").symlink_to("a")
    a, b, c, link = all_of(root)
    (root / "a").unlink()
    (root / "l").unlink()
    (root / "b").unlink()
    os.mkfifo(root / "b")
    (root / "c").unlink()
    (root / "c").mkdir()
    for found, name, error in (
        (a, "a was removed", FileChangedError),
        (link, "l was removed", FileChangedError),
        (b, "b is no regular file", UnsupportedFileError),
        (c, "c is no regular file", UnsupportedFileError),
    ):
        with pytest.raises(error, match=name):
            staged(root, store, [found])
    assert store.index.packs() == {}


def test_many_small_files(root: Path, store: Store) -> None:
    for i in range(3000):
        (root / f"{i}").write_bytes(b"%d" % i * 100)
    assert len(staged(root, store)) == 3000
    assert not any(each.was_read for each in staged(root, store))
    assert len(store.index.packs()) == 1
