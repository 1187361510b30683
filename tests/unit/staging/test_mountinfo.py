from __future__ import annotations

from pathlib import Path

from shardfs.staging.mountinfo import mount_above, own_mounts

TABLE = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
90 27 0:50 / /home/u/models rw,nosuid shared:1 - fuse.shardfs shardfs rw,user_id=0
91 27 0:51 / /home/u/two\040words\134x rw - fuse.shardfs shardfs rw
92 27 0:52 / /mnt/other rw - fuse.sshfs host rw
"""


def test_mounts_are_told_by_type_and_unescaped() -> None:
    assert own_mounts(TABLE) == {b"/home/u/models", b"/home/u/two words\\x"}


def test_the_table_of_this_process_can_be_read() -> None:
    assert Path("/proc/self/mountinfo").exists()
    assert isinstance(own_mounts(), frozenset)


def test_what_lies_below_a_mount_is_told_by_text() -> None:
    mounts = frozenset({b"/a/models"})
    assert mount_above(b"/a/models", mounts) == b"/a/models"
    assert mount_above(b"/a/models/x/y", mounts) == b"/a/models"
    assert mount_above(b"/a/models2", mounts) is None
    assert mount_above(b"/a", mounts) is None
    assert mount_above(b"/a/b", frozenset({b"/"})) == b"/"
