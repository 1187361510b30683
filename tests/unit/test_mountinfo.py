from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardfs import mountinfo
from shardfs.mountinfo import mount_above, own_mounts

TABLE = (
    rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:39 / /home/me/a\040b rw,nosuid,nodev shared:9 - fuse.shardfs /srv/x\054y rw,user_id=0
24 22 0:41 / /home/me/"""
    + b"caf\xe9"
    + rb""" rw - fuse.shardfs demo rw
25 23 0:50 / /home/me/a\040b rw - tmpfs tmpfs rw
broken line
"""
)


def test_rows_of_the_kernels_table() -> None:
    rows = mountinfo.parse(TABLE)
    assert [row.type for row in rows] == ["ext4", "fuse.shardfs", "fuse.shardfs", "tmpfs"]
    assert rows[1] == (Path("/home/me/a b"), "0:39", "fuse.shardfs", "/srv/x,y")
    assert rows[1].connection == 39
    assert rows[2].mountpoint == Path("/home/me/caf\udce9")


def test_the_topmost_mount_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mountinfo.top_row(Path("/proc")) is not None
    assert mountinfo.top_row(Path("/proc/self")) is None
    monkeypatch.setattr(mountinfo, "rows", lambda: mountinfo.parse(TABLE))
    found = mountinfo.top_row(Path("/home/me/a b"))
    assert found is not None
    assert found.type == "tmpfs"


def test_own_mounts_are_told_by_type(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    table = tmp_path / "mountinfo"
    monkeypatch.setattr(mountinfo, "_TABLE", table)
    assert own_mounts() == frozenset()
    table.write_bytes(TABLE)
    assert own_mounts() == {b"/home/me/a b", b"/home/me/caf\xe9"}


def test_what_lies_below_a_mount_is_told_by_text() -> None:
    mounts = frozenset({b"/a/models"})
    assert mount_above(b"/a/models", mounts) == b"/a/models"
    assert mount_above(b"/a/models/x/y", mounts) == b"/a/models"
    assert mount_above(b"/a/models2", mounts) is None
    assert mount_above(b"/a", mounts) is None
    assert mount_above(b"/a/b", frozenset({b"/"})) == b"/"


def test_folders_on_overlayfs_are_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    row = f"30 22 {os.major(device)}:{os.minor(device)} / /x rw - %s overlay rw"
    for type_, stacked in (("overlay", True), ("ext4", False)):
        table = tmp_path / type_
        table.write_text(row % type_)
        monkeypatch.setattr(mountinfo, "_TABLE", table)
        assert mountinfo.is_stacked(tmp_path) is stacked
        assert mountinfo.is_stacked(tmp_path / "not" / "there") is stacked
    monkeypatch.setattr(mountinfo, "_TABLE", tmp_path / "missing")
    assert mountinfo.is_stacked(tmp_path) is False
