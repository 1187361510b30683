"""The layouts are the kernel's."""

from __future__ import annotations

from struct import Struct

import pytest

from shardfs.mount.kernel import messages

# sizeof() of the structures of linux/fuse.h 7.40. Requests may be read in part, replies and notices must be whole.
WHOLE = {
    "IN_HEADER": 40,
    "OUT_HEADER": 16,
    "INIT_OUT": 64,
    "ATTR": 88,
    "OPEN_OUT": 16,
    "WRITE_OUT": 8,
    "GETXATTR_OUT": 8,
    "STATFS_OUT": 80,
    "DIRENT": 24,
    "INVAL_INODE_OUT": 24,
    "INVAL_ENTRY_OUT": 16,
    # Requests that have names or data behind them
    "BATCH_FORGET_IN": 8,
    "FORGET_ONE": 16,
    "MKNOD_IN": 16,
    "MKDIR_IN": 8,
    "RENAME_IN": 8,
    "RENAME2_IN": 16,
    "CREATE_IN": 16,
    "WRITE_IN": 40,
    "SETXATTR_IN": 8,
    "GETXATTR_IN": 8,
}


@pytest.mark.parametrize(("name", "size"), WHOLE.items())
def test_sizes(name: str, size: int) -> None:
    layout: Struct = getattr(messages, name)
    assert layout.size == size


def test_entries_and_attributes_are_headers_of_attr() -> None:
    assert messages.ENTRY_OUT_SIZE == 128
    assert messages.ATTR_OUT.size + messages.ATTR.size == 104
