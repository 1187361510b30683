from __future__ import annotations

import stat
import struct

import pytest

from shardfs.mount.kernel.encode import Encoder, absent, dirent
from shardfs.mount.kernel.messages import ATTR, ATTR_OUT, ENTRY_OUT
from shardfs.mount.kernel.policy import Lifetime
from shardfs.mount.nodes import Attr


def test_attributes_of_the_owner() -> None:
    ino, size, blocks, atime, mtime, ctime, *rest = ATTR.unpack(
        Encoder(1, 2).attr(Attr(7, stat.S_IFREG | 0o644, 1025, 3 * 10**9 + 5, ctime_ns=4 * 10**9 + 6))
    )
    assert (ino, size, blocks, atime, mtime, ctime) == (7, 1025, 3, 3, 3, 4)
    assert rest[:7] == [5, 5, 6, stat.S_IFREG | 0o644, 1, 1, 2]


def test_times_before_1970_are_signed() -> None:
    found = ATTR.unpack(Encoder(0, 0).attr(Attr(1, stat.S_IFREG, 0, -1)))
    assert struct.unpack("=q", struct.pack("=Q", found[4])) == (-1,)
    assert found[7] == 10**9 - 1


def test_timeouts_are_whole_seconds_and_the_rest() -> None:
    attr = Attr(1, stat.S_IFREG, 0, 0)
    assert ENTRY_OUT.unpack_from(Encoder(0, 0).entry_out(9, attr, Lifetime(1.5, 0.75))) == (
        9,
        0,
        1,
        0,
        5 * 10**8,
        75 * 10**7,
    )
    assert ATTR_OUT.unpack_from(Encoder(0, 0).attr_out(attr, 2.25)) == (2, 25 * 10**7, 0)
    assert ENTRY_OUT.unpack_from(absent(3)) == (0, 0, 3, 0, 0, 0)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 255])
def test_names_of_a_listing_end_at_eight_bytes(length: int) -> None:
    made = dirent(5, 3, b"n" * length, stat.S_IFDIR)
    assert len(made) % 8 == 0
    assert made[24 : 24 + length] == b"n" * length
    assert struct.unpack_from("=QQII", made) == (5, 3, length, 4)  # 4: DT_DIR
