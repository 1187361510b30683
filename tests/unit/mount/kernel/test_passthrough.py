"""Which files the kernel reads itself, against a kernel that keeps the rules of the real one."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from shardfs.formats.ids import chunk_id
from shardfs.mount.kernel.messages import Opcode
from tests.fuse_kernel import Kernel
from tests.memory_repository import MemorySource


@pytest.fixture
def node(kernel: Kernel, source: MemorySource) -> int:
    """A committed file; there is no plain file of it yet."""
    kernel.passthrough.is_on = True
    return kernel.lookup(f"commits/{source.refs['main'].hex()}/a.txt")


def make_plain(source: MemorySource, folder: Path, data: bytes = b"two\n") -> int:
    """A plain file of a content; its inode number."""
    path = folder / "plain"
    path.write_bytes(data)
    source.plain[chunk_id(data)] = path
    return path.stat().st_ino


def test_open_files_of_a_plain_file_share_one_backing_file(
    kernel: Kernel, source: MemorySource, node: int, tmp_path: Path
) -> None:
    inode = make_plain(source, tmp_path)
    first, backing = kernel.open_mode(node)
    second, same = kernel.open_mode(node)
    assert backing == same
    assert kernel.backing.inodes == {backing: inode}
    kernel.close_mode(node, first, backing)
    assert kernel.backing.inodes == {backing: inode}
    kernel.close_mode(node, second, backing)
    assert kernel.backing.inodes == {}
    assert kernel.passthrough.opened == 2


def test_a_file_that_becomes_plain_while_it_is_open_goes_on_as_before(
    kernel: Kernel, source: MemorySource, node: int, tmp_path: Path
) -> None:
    first, cached = kernel.open_mode(node)
    make_plain(source, tmp_path)
    second, still = kernel.open_mode(node)
    assert cached == still == 0
    kernel.close_mode(node, first, 0)
    kernel.close_mode(node, second, 0)
    assert kernel.open_mode(node)[1]


def test_a_plain_file_that_is_lost_while_it_is_open_is_used_on(
    kernel: Kernel, source: MemorySource, node: int, tmp_path: Path
) -> None:
    make_plain(source, tmp_path)
    first, backing = kernel.open_mode(node)
    source.plain.clear()
    second, same = kernel.open_mode(node)
    assert same == backing
    kernel.close_mode(node, second, backing)
    kernel.close_mode(node, first, backing)
    assert kernel.open_mode(node)[1] == 0


def test_an_open_that_nobody_got_holds_nothing(kernel: Kernel, source: MemorySource, node: int, tmp_path: Path) -> None:
    make_plain(source, tmp_path)
    request = kernel.request(Opcode.OPEN, node, bytes(8))
    kernel.operations.answer(request)
    assert kernel.backing.inodes
    assert request.undo is not None
    request.undo()
    assert kernel.backing.inodes == {}


@pytest.mark.parametrize(("refusal", "asked_again"), [(errno.EPERM, False), (errno.ELOOP, True)])
def test_what_the_kernel_does_not_take_the_daemon_reads(
    kernel: Kernel, source: MemorySource, node: int, tmp_path: Path, refusal: int, *, asked_again: bool
) -> None:
    make_plain(source, tmp_path)
    kernel.backing.refuse = refusal
    number, backing = kernel.open_mode(node)
    assert (backing, kernel.passthrough.refused) == (0, 1)
    kernel.close_mode(node, number, 0)
    kernel.backing.refuse = 0
    assert bool(kernel.open_mode(node)[1]) is asked_again
    assert kernel.passthrough.is_on is asked_again


def test_nothing_is_passed_through_before_the_kernel_agreed(
    kernel: Kernel, source: MemorySource, node: int, tmp_path: Path
) -> None:
    make_plain(source, tmp_path)
    kernel.passthrough.is_on = False
    number, backing = kernel.open_mode(node)
    assert backing == 0
    kernel.close_mode(node, number, 0)


def test_a_plain_file_on_a_disk_without_direct_io_is_not_given(kernel: Kernel, node: int, source: MemorySource) -> None:
    """The kernel would refuse programs that ask for O_DIRECT. Files of /proc have none."""
    source.plain[chunk_id(b"two\n")] = Path("/proc/self/status")
    assert kernel.open_mode(node)[1] == 0
    assert kernel.passthrough.refused == 1


def test_flags_go_with_what_the_kernel_takes(kernel: Kernel, source: MemorySource, node: int, tmp_path: Path) -> None:
    """`open_mode` checks them; files of staging have none and use pages."""
    make_plain(source, tmp_path)
    assert kernel.open_mode(node)[1]
    assert kernel.open_mode(kernel.lookup("staging/a.txt"), os.O_RDONLY)[1] == 0
    assert kernel.open_mode(kernel.lookup(".shardfs/stats.json"))[1] == 0
