from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import MountError
from shardfs.mount.kernel import channel as channels
from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.messages import OUT_HEADER, Notice
from shardfs.mount.options import EngineOptions


@pytest.fixture
def pipe() -> Iterator[tuple[Channel, int]]:
    """A channel into a pipe, and its other end."""
    reading, writing = os.pipe()
    yield Channel(writing), reading
    os.close(reading)
    os.close(writing)


def test_replies_errors_and_notices(pipe: tuple[Channel, int]) -> None:
    channel, other = pipe
    assert channel.reply(7, [b"ab", memoryview(b"cde")[1:]])
    assert os.read(other, 100) == OUT_HEADER.pack(20, 0, 7) + b"abde"
    assert channel.fail(9, errno.ENOENT)
    assert os.read(other, 100) == OUT_HEADER.pack(16, -errno.ENOENT, 9)
    assert channel.notify(Notice.INVAL_ENTRY, b"body")
    assert os.read(other, 100) == OUT_HEADER.pack(20, 3, 0) + b"body"


def test_many_pieces_are_one_message(pipe: tuple[Channel, int]) -> None:
    channel, other = pipe
    channel.reply(1, [b"x"] * 5000)
    assert os.read(other, 10_000) == OUT_HEADER.pack(5016, 0, 1) + b"x" * 5000


def helper(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / channels.HELPER
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'fusermount3: no permission' >&2; exit 1", "fusermount3: no permission"),
        ("exit 3", "ended with status 3"),
        ("exit 0", "sent no descriptor"),
    ],
)
def test_the_helper_says_why_it_does_not_mount(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    helper(tmp_path, script, monkeypatch)
    with pytest.raises(MountError, match=said):
        channels.connect(str(tmp_path), EngineOptions("source"))


def test_the_helper_is_told_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(tmp_path, f'echo "$@" > {tmp_path}/said; exit 1', monkeypatch)
    with pytest.raises(MountError):
        channels.connect("/the point", EngineOptions("/the source", allow_other=True, read_only=True))
    assert (tmp_path / "said").read_text() == (
        "-o fsname=/the source,subtype=shardfs,nosuid,nodev,default_permissions,allow_other,ro -- /the point\n"
    )


def test_without_the_helper_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MountError, match="apt install fuse3"):
        channels.connect(str(tmp_path), EngineOptions("source"))
