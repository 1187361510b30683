from __future__ import annotations

from collections.abc import Iterator

import pytest

from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.messages import INVAL_ENTRY_OUT, INVAL_INODE_OUT, Notice
from shardfs.mount.kernel.notices import Notices
from shardfs.mount.vfs import Vfs
from tests.fuse_kernel import Kernel
from tests.memory_repository import MemorySource
from tests.mount.conftest import eventually

Told = list[tuple[Notice, int, bytes, int]]  # notice, node or parent, name, flags


class Recorder(Channel):
    """Remembers what the kernel would be told."""

    def __init__(self) -> None:
        super().__init__(-1)
        self.told: Told = []

    def notify(self, notice: Notice, body: bytes) -> bool:
        if notice is Notice.INVAL_ENTRY:
            parent, length, flags = INVAL_ENTRY_OUT.unpack_from(body)
            assert body[INVAL_ENTRY_OUT.size + length :] == b"\0"
            self.told.append((notice, parent, body[INVAL_ENTRY_OUT.size : -1], flags))
        else:
            node, offset, _ = INVAL_INODE_OUT.unpack(body)
            self.told.append((notice, node, b"", offset))
        return True


@pytest.fixture
def recorder(vfs: Vfs, kernel: Kernel) -> Iterator[Recorder]:
    found = Recorder()
    notices = Notices(vfs, found, kernel.table)
    notices.start(can_expire=True)
    yield found
    notices.stop()


def test_the_kernel_hears_of_moved_refs_from_the_look_that_finds_out(
    vfs: Vfs, kernel: Kernel, source: MemorySource, recorder: Recorder
) -> None:
    kernel.lookup("latest")
    kernel.lookup("branches/main")
    kernel.lookup(f"commits/{source.refs['main'].hex()}/a.txt")
    vfs.readdir(vfs.resolve(b"versions"))
    assert recorder.told == []
    source.put({(b"a.txt",): b"three\n"}, "third")
    vfs.expire()
    vfs.readdir(vfs.resolve(b"versions"))
    assert set(recorder.told) == {
        (Notice.INVAL_ENTRY, 1, b"latest", 0),
        (Notice.INVAL_ENTRY, kernel.lookup("branches"), b"main", 0),
    }


def test_names_of_staging_are_asked_for_again_without_cutting_off_who_works_there(
    vfs: Vfs, kernel: Kernel, source: MemorySource, recorder: Recorder
) -> None:
    staging, file = kernel.lookup("staging"), kernel.lookup("staging/a.txt")
    source.put({(b"a.txt",): b"three\n"}, "third")
    vfs.expire()
    kernel.lookup("staging/a.txt")
    wanted = {
        (Notice.INVAL_INODE, staging, b"", -1),
        (Notice.INVAL_ENTRY, 1, b"staging", 1),
        (Notice.INVAL_INODE, file, b"", -1),
        (Notice.INVAL_ENTRY, staging, b"a.txt", 1),
    }
    assert eventually(lambda: wanted <= set(recorder.told), 5)
