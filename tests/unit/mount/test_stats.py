"""Counters of a mount: every request, error, byte and open file is counted once."""

from __future__ import annotations

import errno
import json
import os
from typing import NamedTuple

import pytest

from shardfs.errors import IndexCorruptedError
from shardfs.mount import process
from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource, code, content, write


class Engine(NamedTuple):
    """What an engine counts."""

    copies: int


def test_requests_bytes_and_errors_are_counted(vfs: Vfs) -> None:
    before = vfs.stats.traffic.counts()
    write(vfs, b"new", b"12345")
    assert content(vfs, b"staging/new") == b"12345"
    assert code(lambda: vfs.lookup(vfs.root, b"nothing")) == errno.ENOENT
    after = vfs.stats.traffic.counts()
    assert after.written_bytes - before.written_bytes == 5
    assert after.read_bytes - before.read_bytes == 5
    assert after.errors["ENOENT"] - before.errors.get("ENOENT", 0) >= 1
    assert after.requests["lookup"] - before.requests.get("lookup", 0) == 1
    assert after.requests["write"] - before.requests.get("write", 0) == 1
    assert after.open_files == before.open_files


def test_errors_of_the_repository_count_by_what_programs_see(
    source: MemorySource, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "commits_with_prefix", lambda _: (_ for _ in ()).throw(IndexCorruptedError("broken")))
    assert code(lambda: vfs.resolve(b"commits/abcdef")) == errno.EIO
    assert vfs.stats.traffic.counts().errors["EIO"] == 1


def test_open_files_are_those_that_are_open(vfs: Vfs) -> None:
    handles = [vfs.open(vfs.resolve(b".shardfs/errors"), os.O_RDONLY) for _ in range(3)]
    assert vfs.stats.traffic.counts().open_files == 3
    for handle in handles:
        vfs.release(handle)
    assert vfs.stats.traffic.counts().open_files == 0


def test_every_part_is_shown_also_when_the_repository_cannot_answer(
    source: MemorySource, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    vfs.counters["engine"] = lambda: Engine(copies=7)
    shown = json.loads(content(vfs, b".shardfs/stats.json"))
    assert (shown["engine"], shown["answer"]) == ({"copies": 7}, 42)
    assert shown["process"]["rss_bytes"] > 1 << 20
    assert shown["process"]["threads"] >= 1
    assert shown["process"]["descriptors"] >= 3
    assert shown["uptime_s"] >= 0

    def broken() -> None:
        raise IndexCorruptedError("broken")

    monkeypatch.setattr(source, "stats_snapshot", broken)
    shown = json.loads(content(vfs, b".shardfs/stats.json"))
    assert "answer" not in shown
    assert shown["mount"]["requests"]["open"] >= 1


def test_the_memory_of_a_process_that_is_gone_is_unknown() -> None:
    assert process.rss_bytes(os.getpid())
    assert process.rss_bytes(2**22 + 1) is None
