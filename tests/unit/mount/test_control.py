"""`.shardfs/`: the door for commits, and what it tells."""

from __future__ import annotations

import errno
import json
import os

import pytest

from shardfs.errors import LockedError
from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource, code, content, link, names, write


def say(vfs: Vfs, *pieces: bytes) -> None:
    """What `echo > .shardfs/commit` does."""
    handle = vfs.open(vfs.resolve(b".shardfs/commit"), os.O_WRONLY | os.O_TRUNC)
    offset = 0
    try:
        for piece in pieces:
            offset += vfs.write(handle, offset, piece)
        vfs.flush(handle)
    finally:
        vfs.release(handle)


def test_a_message_makes_a_commit_that_is_seen_at_once(source: MemorySource, vfs: Vfs) -> None:
    assert link(vfs, b"latest")
    write(vfs, b"new", b"data")
    say(vfs, b"epoch", b" 2\n")
    tip = source.refs["main"]
    assert source.objects.commits[tip].message == "epoch 2"
    assert content(vfs, b".shardfs/commit") == tip.hex().encode() + b"\n"
    assert link(vfs, b"latest").endswith(tip.hex().encode())
    assert content(vfs, link(vfs, b"latest") + b"/new") == b"data"


def test_each_close_of_a_message_commits_once(source: MemorySource, vfs: Vfs) -> None:
    handle = vfs.open(vfs.resolve(b".shardfs/commit"), os.O_WRONLY)
    vfs.flush(handle)  # a shell closes a duplicate before it writes
    before = source.refs["main"]
    write(vfs, b"new", b"data")
    vfs.write(handle, 0, b"message")
    vfs.flush(handle)
    after = source.refs["main"]
    vfs.flush(handle)
    assert before != after == source.refs["main"]


def test_a_refused_commit_is_the_error_of_close(vfs: Vfs) -> None:
    assert code(lambda: say(vfs, b"nothing changed\n")) == errno.ENODATA
    assert content(vfs, b".shardfs/commit") == b"error: nothing to commit\n"
    assert code(lambda: say(vfs, b" \n")) == errno.EINVAL
    assert content(vfs, b".shardfs/commit").startswith(b"error: the message is blank")


def test_a_locked_repository_is_ebusy_with_its_cause(
    source: MemorySource, vfs: Vfs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_: object, **__: object) -> None:
        raise LockedError("locked by process 7")

    monkeypatch.setattr(source, "commit", locked)
    assert code(lambda: say(vfs, b"message")) == errno.EBUSY
    assert b"EBUSY: locked by process 7" in content(vfs, b".shardfs/errors")


def test_a_message_without_end_is_refused(vfs: Vfs) -> None:
    handle = vfs.open(vfs.resolve(b".shardfs/commit"), os.O_WRONLY)
    for offset in range(0, 1 << 20, 1 << 16):
        vfs.write(handle, offset, b"x" * (1 << 16))
    assert code(lambda: vfs.write(handle, 1 << 20, b"x")) == errno.EFBIG


def test_the_password_of_a_remote_is_not_told(source: MemorySource, vfs: Vfs) -> None:
    source.url = "https://ada:secret@example.org:8750/demo?key=secret"
    assert json.loads(content(vfs, b".shardfs/config.json"))["url"] == "https://example.org:8750/demo"


def test_what_the_mount_tells_about_itself(source: MemorySource, vfs: Vfs) -> None:
    config = json.loads(content(vfs, b".shardfs/config.json"))
    assert config["repository"] == str(source.store_path)
    assert (config["branch"], config["pid"], config["writable"]) == ("main", os.getpid(), True)
    assert json.loads(content(vfs, b".shardfs/stats.json"))["answer"] == 42
    assert sorted(names(vfs, b".shardfs")) == [b"commit", b"config.json", b"errors", b"stats.json"]
    file = vfs.resolve(b".shardfs/config.json")
    assert vfs.getattr(file).size == len(content(vfs, b".shardfs/config.json"))
    assert code(lambda: vfs.open(file, os.O_RDWR)) == errno.EROFS
    assert code(lambda: vfs.truncate(file, 0)) == errno.EROFS


def test_touching_and_cutting_the_commit_file_is_allowed(vfs: Vfs) -> None:
    file = vfs.resolve(b".shardfs/commit")
    vfs.truncate(file, 0)
    vfs.utimens(file, 0)
