"""Commits as plain files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import AlreadyExistsError, ChunkNotFoundError, LocalChangesError, StoreError
from shardfs.formats.ids import ChunkId, Kind, TreeId
from shardfs.formats.tree import FileEntry, Tree, TreeEntry
from shardfs.history import paths
from shardfs.history.content import FileReader
from shardfs.history.objects import Objects
from shardfs.staging.checkout import CheckoutReport, export, write_files
from tests.memory_objects import Folder, Memory
from tests.stores import noise

FILES: Folder = {
    b"a": b"one",
    b"empty": b"",
    b"dir": {b"x": noise(1, 3000), b"deep": {b"y": b"two"}, b"none": {}},
    b"link": "dir/x",
    b"caf\xff": b"bytes",
    b"n" * 255: b"long",
}


@pytest.fixture
def memory() -> Memory:
    return Memory()


def _open(memory: Memory, entry: FileEntry) -> FileReader:
    return FileReader(entry, Objects(memory), memory)


def _export(memory: Memory, tree: TreeId, target: Path) -> CheckoutReport:
    return export(Objects(memory), tree, lambda e: _open(memory, e), target)


def _write(memory: Memory, folder: Folder, target: Path, *, replace: bool = True) -> CheckoutReport:
    items: Iterator[tuple[paths.Path, TreeEntry]] = paths.walk(Objects(memory), memory.put_tree(folder))
    return write_files(target, items, lambda e: _open(memory, e), may_replace=lambda *_: replace)


def _on_disk(folder: bytes) -> Folder:
    found: dict[bytes, bytes | str | Folder] = {}
    for entry in os.scandir(folder):
        if entry.is_symlink():
            found[entry.name] = str(Path(os.fsdecode(entry.path)).readlink())
        elif entry.is_dir():
            found[entry.name] = _on_disk(entry.path)
        else:
            found[entry.name] = Path(os.fsdecode(entry.path)).read_bytes()
    return found


def test_a_whole_tree(memory: Memory, tmp_path: Path) -> None:
    report = _export(memory, memory.put_tree(FILES), tmp_path / "out")
    assert _on_disk(os.fsencode(tmp_path / "out")) == FILES
    assert (report.files, report.bytes) == (7, 3 + 3000 + 3 + 5 + 4)
    assert _on_disk(os.fsencode(tmp_path)) == {b"out": FILES}


def test_progress_tells_all_bytes(memory: Memory, tmp_path: Path) -> None:
    told: list[tuple[int, int | None, str]] = []
    tree = memory.put_tree({b"a": noise(1, 1000), b"b": b"xy"})
    export(Objects(memory), tree, lambda e: _open(memory, e), tmp_path / "o", progress=lambda *step: told.append(step))
    assert told[-1] == (1002, 1002, "b")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_the_executable_bit_and_the_umask(memory: Memory, tmp_path: Path) -> None:
    chunk = ChunkId(memory.put(Kind.CHUNK, b"#!"))
    entries: list[TreeEntry] = [FileEntry(b"run", 2, executable=True, chunk=chunk), FileEntry(b"data", 2, chunk=chunk)]
    tree = TreeId(memory.put(Kind.TREE, Tree.of(entries).to_bytes()))
    before = os.umask(0o027)
    try:
        _export(memory, tree, tmp_path / "o")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "o/run").stat().st_mode) == 0o750
    assert stat.S_IMODE((tmp_path / "o/data").stat().st_mode) == 0o640


def test_blocks_of_zeros_become_holes(memory: Memory, tmp_path: Path) -> None:
    size = 8 << 20
    _write(memory, {b"sparse": bytes(size), b"tail": b"x" + bytes(size)}, tmp_path)
    for name, expected in (("sparse", bytes(size)), ("tail", b"x" + bytes(size))):
        assert (tmp_path / name).read_bytes() == expected
        assert (tmp_path / name).stat().st_blocks * 512 <= 2 << 20


def test_an_export_wants_an_empty_place(memory: Memory, tmp_path: Path) -> None:
    tree = memory.put_tree({b"a": b"1"})
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "empty").mkdir()
    for name in ("file", "full"):
        with pytest.raises(AlreadyExistsError, match="not an empty directory"):
            _export(memory, tree, tmp_path / name)
    _export(memory, tree, tmp_path / "empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(StoreError):
        _export(memory, tree, tmp_path / "dangling")


def test_files_are_replaced_only_when_they_may(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("mine")
    with pytest.raises(LocalChangesError, match="a has changes"):
        _write(memory, {b"a": b"1"}, tmp_path, replace=False)
    assert (tmp_path / "a").read_text() == "mine"
    inode = (tmp_path / "a").stat().st_ino
    _write(memory, {b"a": b"1"}, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"1"
    assert (tmp_path / "a").stat().st_ino != inode  # who has the old one open keeps it
    _write(memory, {b"a": "target"}, tmp_path)
    assert (tmp_path / "a").readlink() == Path("target")
    _write(memory, {b"a": b"2"}, tmp_path)  # the link, not what it points to
    assert (tmp_path / "a").read_bytes() == b"2"


def test_nothing_is_written_through_links(memory: Memory, tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "in"
    outside.mkdir()
    inside.mkdir()
    (inside / "d").symlink_to(outside)
    (inside / "f").symlink_to(outside / "file")
    with pytest.raises(AlreadyExistsError, match="not a directory"):
        _write(memory, {b"d": {b"x": b"1"}}, inside)
    _write(memory, {b"f": b"1"}, inside)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("folder", [{b".shardfs": {b"config.toml": b"1"}}, {b"d": {b".shardfs": "link"}}])
def test_nothing_is_written_where_repositories_are(memory: Memory, tmp_path: Path, folder: Folder) -> None:
    with pytest.raises(AlreadyExistsError, match="name of repositories"):
        _write(memory, folder, tmp_path)
    assert not list(tmp_path.rglob(".shardfs"))


def test_directories_in_the_way(memory: Memory, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for value in (b"1", "link"):
        with pytest.raises(AlreadyExistsError, match="is a directory"):
            _write(memory, {b"a": value}, tmp_path)
    (tmp_path / "f").touch()
    with pytest.raises(AlreadyExistsError, match="not a directory"):
        _write(memory, {b"f": {b"x": b"1"}}, tmp_path)


def test_a_file_is_whole_or_not_there(memory: Memory, tmp_path: Path) -> None:
    entry = memory.put_file(b"big", noise(1, 3000), 1000)
    (tmp_path / "big").write_text("old")
    del memory.data[Kind.CHUNK, Objects(memory).manifest(entry.manifest).chunks[2].id]  # type: ignore[arg-type]
    with pytest.raises(ChunkNotFoundError):
        write_files(tmp_path, [((b"big",), entry)], lambda e: _open(memory, e), may_replace=lambda *_: True)
    assert _on_disk(os.fsencode(tmp_path)) == {b"big": b"old"}


def test_a_full_disk_leaves_nothing_half(memory: Memory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    monkeypatch.setattr(Path, "replace", full)
    for value in (b"1", "link"):
        with pytest.raises(StoreError, match="No space"):
            _write(memory, {b"a": value}, tmp_path)
    assert list(tmp_path.iterdir()) == []
