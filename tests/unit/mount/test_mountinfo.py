from __future__ import annotations

from pathlib import Path

from shardfs.mount import mountinfo

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


def test_the_topmost_mount_counts(monkeypatch: object) -> None:
    assert mountinfo.top_row(Path("/proc")) is not None
    assert mountinfo.top_row(Path("/proc/self")) is None
    rows = [row for row in mountinfo.parse(TABLE) if row.mountpoint == Path("/home/me/a b")]
    assert rows[-1].type == "tmpfs"
