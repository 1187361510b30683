"""A system that allows no more threads."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

import shardfs
from shardfs import threads
from shardfs.errors import RemoteUnavailableError
from shardfs.formats.ids import Kind, chunk_id
from shardfs.formats.tree import FileEntry
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests import stores

CONTENT = os.urandom(5 << 20)


@pytest.fixture
def no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)


def test_files_are_read_all_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (tmp_path / "model.bin").write_bytes(CONTENT)
    with shardfs.init(tmp_path) as repo:
        repo.add([tmp_path / "model.bin"])
        repo.commit("first")
    request.getfixturevalue("no_more")
    with shardfs.open(tmp_path) as repo, repo.read("HEAD:model.bin") as file:
        entry = repo.entry("HEAD", "model.bin")
        assert isinstance(entry, FileEntry)
        assert b"".join(iter(lambda: file.read(100_000), b"")) == CONTENT
        repo.note_read(entry, 2 * entry.size)
        assert repo.plain_file(entry) is None


def test_remotes_are_read_again_when_there_are_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full, lazy = Store.create(tmp_path / "full"), Store.create(tmp_path / "lazy")
    with full.batch() as batch:
        batch.put(Kind.CHUNK, CONTENT[:1000])
    stores.know_remote_packs(lazy, full)
    reader = Reader(lazy, remote=lambda _: stores.FolderSource(full))
    with monkeypatch.context() as few:
        few.setattr(threads, "start", lambda _work, _name: None)
        with pytest.raises(RemoteUnavailableError, match="no more threads"):
            reader.chunk(chunk_id(CONTENT[:1000]), 1000)
    assert reader.chunk(chunk_id(CONTENT[:1000]), 1000) == CONTENT[:1000]
    reader.close()
    full.close()
    lazy.close()


def test_what_a_thread_was_asked_comes_back() -> None:
    assert threads.ask(lambda: threading.current_thread().name, "asked").result(20) == "shardfs-asked"
    with pytest.raises(ZeroDivisionError):
        threads.ask(lambda: 1 // 0, "asked").result(20)
