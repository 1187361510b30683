"""Without any remote: what is here is read, of the rest it is said what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.cli.conftest import Shell

MIB = 1 << 20


@pytest.fixture
def clone(project: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """A shell in a lazy clone of a repository with a file in a folder and a small one."""
    project.write("weights/model.bin", os.urandom(3 * MIB))
    project.write("note.txt", "n")
    project("add", "weights", "note.txt")
    project.commit("first", "--tag", "v1")
    project("clone", "-q", project.folder / ".shardfs", tmp_path / "clone")
    return Shell(tmp_path / "clone", monkeypatch)


def test_what_is_missing_is_told_exactly(clone: Shell) -> None:
    clone("cat", "v1:note.txt")
    assert clone("--offline", "cat", "v1:note.txt").out == "n"
    assert "weights" in clone("--offline", "ls", "v1").out
    error = clone("cat", "--offline", "v1:weights/model.bin", status=14).err
    assert len(error.splitlines()) == 1
    assert "weights/model.bin: " in error
    assert f"({3 * MIB} bytes) are not here; they are at origin; `shardfs prefetch" in error
    assert clone("fetch", "--offline", status=14).err.startswith("shardfs: origin is not asked: offline")
    assert len(clone.process("cat", "v1:weights/model.bin", status=0).out) > 0


def test_the_environment_and_the_setting_do_the_same(clone: Shell) -> None:
    assert "not asked" in clone.process("fetch", status=14, SHARDFS_OFFLINE="1").err
    clone("config", "set", "remote.offline", "true")
    assert "not asked" in clone("pull", status=14).err
    assert clone("status").out
    assert clone("config", "get", "remote.offline").out == "true\n"
