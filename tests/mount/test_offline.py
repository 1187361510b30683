"""A mount that is offline: what is here is read, of the rest it is said at once what is missing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

import shardfs
from tests.mount.conftest import mounting
from tests.serving import serving

pytestmark = [pytest.mark.fuse, pytest.mark.network]

MIB = 1 << 20


def test_reads_of_what_is_not_here_fail_and_say_so(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = os.urandom(1000), os.urandom(3 * MIB)
    (tmp_path / "work" / "weights").mkdir(parents=True)
    (tmp_path / "work" / "note.txt").write_bytes(small)
    (tmp_path / "work" / "weights" / "model.bin").write_bytes(large)
    with shardfs.init(tmp_path / "srv" / "demo", bare=True) as repo:
        repo.import_directory(tmp_path / "work", "one")
    with serving(tmp_path / "srv") as server, shardfs.clone(f"{server.url}/demo", tmp_path / "copy") as repo:
        repo.fetch("origin", [("HEAD", "note.txt")])  # the daemon has another cache
    monkeypatch.setenv("SHARDFS_OFFLINE", "1")
    with mounting(tmp_path / "copy", tmp_path / "point", home) as mounted:
        assert (mounted.latest / "note.txt").read_bytes() == small
        assert (mounted.latest / "weights/model.bin").stat().st_size == len(large)
        with pytest.raises(OSError, match="Input/output") as caught:
            (mounted.latest / "weights/model.bin").read_bytes()
        assert caught.value.errno == errno.EIO
        told = mounted.errors()
        assert "EIO: weights/model.bin: " in told
        assert f"({len(large)} bytes) are not here; they are at origin; `shardfs prefetch" in told
