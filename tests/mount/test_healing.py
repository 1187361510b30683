"""Damage behind a mount that programs do not notice, and whoever operates it does."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import shardfs
from tests.mount.conftest import make_project, mounting

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("engine")]

DATA = os.urandom(3 << 20)


def test_damage_is_healed_from_a_remote_and_told_once(tmp_path: Path, home: Path) -> None:
    make_project(tmp_path / "project", {"big.bin": DATA})
    shutil.copytree(tmp_path / "project" / ".shardfs", tmp_path / "backup")
    with shardfs.open(tmp_path / "project") as repo:
        repo.add_remote("backup", str(tmp_path / "backup"))
        repo.fetch("backup")
    packs = (tmp_path / "project" / ".shardfs" / "packs").rglob("*.pack")
    pack = max(packs, key=lambda path: path.stat().st_size)
    pack.chmod(0o644)
    with pack.open("r+b") as file:
        file.seek(1000)
        file.write(bytes(100))
    with mounting(tmp_path / "project", tmp_path / "models", home) as mounted:
        for _ in range(2):
            assert (mounted.latest / "big.bin").read_bytes() == DATA
        told = [line for line in mounted.errors().splitlines() if "damaged" in line]
    assert len(told) == 1
    assert pack.stem[:12] in told[0]
