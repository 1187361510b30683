"""What the kernel gets for its requests."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

import pytest

from shardfs.mount.kernel.messages import (
    ATTR,
    ATTR_OUT,
    CREATE_IN,
    DIRENT,
    ENTRY_OUT,
    ENTRY_OUT_SIZE,
    GETXATTR_IN,
    HANDLE_IN,
    OPEN_OUT,
    READ_IN,
    RENAME2_IN,
    SETATTR_IN,
    SETXATTR_IN,
    WRITE_IN,
    WRITE_KILL_SUIDGID,
    Opcode,
    OpenFlag,
    Valid,
)
from shardfs.mount.nodes import Node
from shardfs.mount.vfs import Vfs
from tests.fuse_kernel import Kernel
from tests.memory_repository import MemorySource


def code(action: Callable[[], object]) -> int | None:
    with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is what is asked
        action()
    return caught.value.errno


@pytest.fixture
def tip(source: MemorySource) -> str:
    return f"commits/{source.refs['main'].hex()}"


def mode_of(kernel: Kernel, nodeid: int) -> int:
    return int(ATTR.unpack_from(kernel.ask(Opcode.GETATTR, nodeid, bytes(16)), ATTR_OUT.size)[9]) & 0o7777


def made(kernel: Kernel, name: bytes, mode: int = 0o644) -> tuple[int, int]:
    """A new file of staging: node and open file."""
    answer = kernel.ask(
        Opcode.CREATE, kernel.lookup("staging"), CREATE_IN.pack(os.O_RDWR | os.O_CREAT, mode, 0, 0) + name + b"\0"
    )
    return ENTRY_OUT.unpack_from(answer)[0], OPEN_OUT.unpack_from(answer, ENTRY_OUT_SIZE)[0]


def test_absence_below_a_commit_is_an_answer_and_elsewhere_an_error(kernel: Kernel, tip: str) -> None:
    assert kernel.lookup(f"{tip}/missing") == 0
    assert code(lambda: kernel.lookup("staging/missing")) == errno.ENOENT
    assert code(lambda: kernel.lookup(f"{tip}/{'n' * 256}")) == errno.ENAMETOOLONG
    assert code(lambda: kernel.lookup(f"{tip}/a.txt/x")) == errno.ENOTDIR


def test_committed_files_keep_their_pages_and_are_not_flushed(kernel: Kernel, tip: str) -> None:
    node = kernel.lookup(f"{tip}/a.txt")
    number, flags, _ = OPEN_OUT.unpack(kernel.ask(Opcode.OPEN, node, struct.pack("=II", os.O_RDONLY, 0)))
    assert flags == OpenFlag.KEEP_CACHE | OpenFlag.NOFLUSH
    assert kernel.ask(Opcode.READ, node, READ_IN.pack(number, 1, 100)) == b"wo\n"
    assert kernel.ask(Opcode.RELEASE, node, HANDLE_IN.pack(number)) == b""
    assert code(lambda: kernel.open(node, os.O_WRONLY)) == errno.EROFS


def test_control_files_are_read_without_pages(kernel: Kernel) -> None:
    node = kernel.lookup(".shardfs/config.json")
    assert OPEN_OUT.unpack(kernel.ask(Opcode.OPEN, node, bytes(8)))[1] == OpenFlag.DIRECT_IO


def test_a_listing_goes_on_where_the_buffer_was_full(kernel: Kernel, source: MemorySource) -> None:
    names = {b"%03d" % n for n in range(100)}
    source.put({(name,): b"1" for name in names}, "many")
    node = kernel.lookup(f"commits/{source.refs['main'].hex()}")
    for opcode, header in ((Opcode.READDIR, 0), (Opcode.READDIRPLUS, ENTRY_OUT_SIZE)):
        number = OPEN_OUT.unpack(kernel.ask(Opcode.OPENDIR, node, bytes(8)))[0]
        seen: list[bytes] = []
        position = 0
        while answer := kernel.ask(opcode, node, READ_IN.pack(number, position, 1000)):
            assert len(answer) <= 1000
            at = 0
            while at < len(answer):
                _, position, length, _ = DIRENT.unpack_from(answer, at + header)
                at += header + DIRENT.size
                seen.append(answer[at : at + length])
                at += length + -length % 8
        assert seen[:2] == [b".", b".."]
        assert seen[2:] == sorted(names)
        kernel.ask(Opcode.RELEASEDIR, node, HANDLE_IN.pack(number))


def test_a_listing_with_attributes_counts_what_it_told_unless_nobody_got_it(kernel: Kernel, tip: str) -> None:
    node = kernel.lookup(tip)
    number = OPEN_OUT.unpack(kernel.ask(Opcode.OPENDIR, node, bytes(8)))[0]
    before = len(kernel.table)
    request = kernel.request(Opcode.READDIRPLUS, node, READ_IN.pack(number, 0, 4096))
    kernel.operations.answer(request)
    assert len(kernel.table) == before + 3
    assert request.undo is not None
    request.undo()
    assert len(kernel.table) == before


def test_an_open_that_nobody_got_is_closed(kernel: Kernel) -> None:
    node = kernel.lookup("staging/a.txt")
    request = kernel.request(Opcode.OPEN, node, struct.pack("=II", os.O_RDONLY, 0))
    number = OPEN_OUT.unpack(b"".join(kernel.operations.answer(request)))[0]
    assert request.undo is not None
    request.undo()
    with pytest.raises(KeyError):
        kernel.ask(Opcode.READ, node, READ_IN.pack(number, 0, 1))


def test_a_file_is_made_written_renamed_and_lives_without_a_name(kernel: Kernel) -> None:
    node, number = made(kernel, b"new")
    body = WRITE_IN.pack(number, 0, 5, 0, 0, 0, 0) + b"hello"
    assert struct.unpack("=II", kernel.ask(Opcode.WRITE, node, body)) == (5, 0)
    staging = kernel.lookup("staging")
    kernel.ask(Opcode.RENAME2, staging, RENAME2_IN.pack(staging, 0, 0) + b"new\0moved\0")
    assert kernel.lookup("staging/moved") == node
    kernel.ask(Opcode.UNLINK, staging, b"moved\0")
    assert ATTR.unpack_from(kernel.ask(Opcode.GETATTR, node, bytes(16)), ATTR_OUT.size)[1] == 5
    assert kernel.ask(Opcode.READ, node, READ_IN.pack(number, 0, 100)) == b"hello"
    kernel.ask(Opcode.RELEASE, node, HANDLE_IN.pack(number))
    assert code(lambda: kernel.ask(Opcode.GETATTR, node, bytes(16))) == errno.ESTALE


def test_attributes_are_set_one_by_one(kernel: Kernel) -> None:
    node, number = made(kernel, b"new")

    def change(valid: int, size: int = 0, mtime: int = 0, nanoseconds: int = 0, mode: int = 0) -> tuple[int, ...]:
        body = SETATTR_IN.pack(valid, 0, number, size, 0, 0, mtime, 0, 0, nanoseconds, 0, mode)
        return ATTR.unpack_from(kernel.ask(Opcode.SETATTR, node, body), ATTR_OUT.size)

    assert change(Valid.SIZE | Valid.FH, size=10)[1] == 10
    assert change(Valid.SIZE, size=3)[1] == 3
    assert change(Valid.MODE, mode=0o100600)[9] & 0o7777 == 0o600
    found = change(Valid.MTIME, mtime=2**64 - 2, nanoseconds=5)
    assert (found[4], found[7]) == (2**64 - 2, 5)  # two seconds before 1970
    assert change(Valid.UID | Valid.GID)[10:13] == (1, 1000, 1000)


def test_a_write_without_the_right_takes_setuid_away(kernel: Kernel) -> None:
    node, number = made(kernel, b"new", 0o755)
    body = SETATTR_IN.pack(Valid.MODE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0o6755)
    kernel.ask(Opcode.SETATTR, node, body)
    kernel.ask(Opcode.WRITE, node, WRITE_IN.pack(number, 0, 1, 0, 0, 0, 0) + b"x")
    assert mode_of(kernel, node) == 0o6755
    kernel.ask(Opcode.WRITE, node, WRITE_IN.pack(number, 0, 1, WRITE_KILL_SUIDGID, 0, 0, 0) + b"x")
    assert mode_of(kernel, node) == 0o755


def test_extended_attributes(kernel: Kernel, tip: str) -> None:
    node = kernel.lookup("staging/a.txt")
    kernel.ask(Opcode.SETXATTR, node, SETXATTR_IN.pack(5, 0) + b"user.note\0value")

    def get(name: bytes, room: int) -> bytes:
        return kernel.ask(Opcode.GETXATTR, node, GETXATTR_IN.pack(room, 0) + name + b"\0")

    assert struct.unpack("=II", get(b"user.note", 0)) == (5, 0)
    assert get(b"user.note", 5) == b"value"
    assert code(lambda: get(b"user.note", 4)) == errno.ERANGE
    assert code(lambda: get(b"security.capability", 100)) == errno.ENODATA
    assert kernel.ask(Opcode.LISTXATTR, node, GETXATTR_IN.pack(100, 0)) == b"user.note\0"
    kernel.ask(Opcode.REMOVEXATTR, node, b"user.note\0")
    assert code(lambda: get(b"user.note", 5)) == errno.ENODATA
    refused = SETXATTR_IN.pack(1, 0) + b"system.posix_acl_access\0x"
    assert code(lambda: kernel.ask(Opcode.SETXATTR, node, refused)) == errno.EOPNOTSUPP
    assert code(lambda: kernel.ask(Opcode.SETXATTR, kernel.lookup(f"{tip}/a.txt"), refused)) == errno.EOPNOTSUPP


def test_what_is_not_supported_says_so(kernel: Kernel) -> None:
    assert code(lambda: kernel.ask(Opcode.LINK, 1, bytes(8) + b"x\0")) == errno.EPERM
    assert code(lambda: kernel.ask(46, 1)) == errno.ENOSYS  # LSEEK: the kernel does it itself


def test_only_what_is_in_memory_is_answered_at_once(kernel: Kernel, tip: str) -> None:
    def quick(opcode: int, nodeid: int, body: bytes = b"") -> bool:
        return kernel.operations.is_quick(kernel.request(opcode, nodeid, body))

    commit = kernel.lookup(tip)
    assert not quick(Opcode.LOOKUP, commit, b"a.txt\0")  # its tree may have to be read
    file = kernel.lookup(f"{tip}/a.txt")
    assert quick(Opcode.LOOKUP, commit, b"a.txt\0")
    assert quick(Opcode.GETATTR, commit)
    assert quick(Opcode.GETATTR, file)
    assert quick(Opcode.OPEN, file)
    number = kernel.open(file)
    assert not quick(Opcode.READ, file, READ_IN.pack(number, 0, 100))
    kernel.ask(Opcode.READ, file, READ_IN.pack(number, 0, 100))
    assert quick(Opcode.READ, file, READ_IN.pack(number, 0, 100))
    for path in ("staging", "latest", "versions"):
        assert not quick(Opcode.GETATTR, kernel.lookup(path))
    staged = kernel.lookup("staging/a.txt")
    assert not quick(Opcode.READ, staged, READ_IN.pack(kernel.open(staged), 0, 100))
    assert not quick(Opcode.SETATTR, file)


def test_a_name_always_leads_to_a_file_while_others_are_renamed_over_it(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(kernel, b"new")
    made(kernel, b"old")
    staging = kernel.lookup("staging")
    before, look = kernel.lookup("staging/old"), Vfs.lookup

    def then_rename(vfs: Vfs, parent: Node, name: bytes) -> Node:
        found = look(vfs, parent, name)
        monkeypatch.undo()
        kernel.ask(Opcode.RENAME2, staging, RENAME2_IN.pack(staging, 0, 0) + b"new\0old\0")
        return found

    monkeypatch.setattr(Vfs, "lookup", then_rename)
    answer = kernel.ask(Opcode.LOOKUP, staging, b"old\0")
    assert ENTRY_OUT.unpack_from(answer)[0] not in (0, before)
    assert code(lambda: kernel.ask(Opcode.OPEN, before, struct.pack("=II", os.O_RDONLY, 0))) == errno.ESTALE
