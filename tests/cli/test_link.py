"""Options about the link to a remote."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Shell
from tests.serving import serving

pytestmark = pytest.mark.network

SIZE = 120 << 10  # bytes that nothing makes smaller
RATE = 200 << 10  # of which a tenth may go at once


def test_a_limit_of_speed_is_kept_in_both_directions(project: Shell, tmp_path: Path) -> None:
    project.commit("one", data__bin=os.urandom(SIZE))
    least_s = (SIZE - RATE / 10) / RATE
    with serving(tmp_path / "srv") as server:
        project("remote", "add", "origin", f"{server.url}/demo")
        started = time.monotonic()
        project.process("push", "--bwlimit", str(RATE))
        assert time.monotonic() - started >= least_s
        started = time.monotonic()
        project.process("clone", "--full", f"{server.url}/demo", tmp_path / "copy", SHARDFS_BWLIMIT=str(RATE))
        assert time.monotonic() - started >= least_s
        Path(tmp_path / "copy/.shardfs/config.toml").write_text("format = 1\n")  # without its remote
        assert project("-C", tmp_path / "copy", "cat", "HEAD:data.bin").out
    for command in (["push"], ["fetch"], ["mount", tmp_path / "models"]):
        assert "not a size" in project(*command, "--bwlimit", "fast", status=2).err
