"""The engine against a kernel at the other end of a socket: what cannot be had from the one that runs here."""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardfs.errors import MountError
from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.engine import Engine
from shardfs.mount.kernel.messages import ENTRY_OUT, IN_HEADER, OUT_HEADER, Opcode
from shardfs.mount.options import EngineOptions
from shardfs.mount.vfs import Vfs
from tests.memory_repository import MemorySource


class Wire:
    """The kernel's end of a connection."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._unique = 0

    def ask(self, opcode: int, nodeid: int, body: bytes) -> tuple[int, bytes]:
        """Errno, or 0, and the answer."""
        self._unique += 2
        self._end.send(
            IN_HEADER.pack(IN_HEADER.size + len(body), opcode, self._unique, nodeid, 0, 0, os.getpid(), 0) + body
        )
        answer = self._end.recv(1 << 20)
        size, code, unique = OUT_HEADER.unpack_from(answer)
        assert (size, unique) == (len(answer), self._unique)
        return -code, answer[OUT_HEADER.size :]


@contextmanager
def serving(vfs: Vfs, options: EngineOptions) -> Iterator[tuple[Wire, list[str]]]:
    """An engine that answers, and in the end what it raised."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    said: list[str] = []

    def serve() -> None:
        try:
            Engine(vfs, Channel(theirs.fileno()), options, lambda: said.append("ready")).run()
        except MountError as error:
            said.append(str(error))

    with ours, theirs:
        ours.settimeout(20)
        thread = threading.Thread(target=serve)
        thread.start()
        yield Wire(ours), said
        ours.shutdown(socket.SHUT_WR)
        thread.join(20)
        assert not thread.is_alive()


@pytest.mark.parametrize("safe", [False, True])
@pytest.mark.parametrize(("minor", "offered"), [(31, 0), (31, 0x3FFFFFF), (36, 0x7FFFFFFF), (45, 0xFFFFFFFF)])
def test_kernels_of_all_ages_are_served(
    vfs: Vfs, source: MemorySource, minor: int, offered: int, *, safe: bool
) -> None:
    with serving(vfs, EngineOptions("source", safe=safe)) as (kernel, said):
        code, answer = kernel.ask(Opcode.INIT, 0, struct.pack("=IIII48x", 7, minor, 131072, offered))
        assert (code, len(answer)) == (0, 64)
        node = 1
        for name in ("commits", source.refs["main"].hex(), "a.txt"):
            code, answer = kernel.ask(Opcode.LOOKUP, node, name.encode() + b"\0")
            assert code == 0
            node = ENTRY_OUT.unpack_from(answer)[0]
        code, answer = kernel.ask(Opcode.OPEN, node, bytes(8))
        code, answer = kernel.ask(Opcode.READ, node, answer[:8] + struct.pack("=QI20x", 0, 4096))
        assert (code, answer) == (0, b"two\n")
        assert kernel.ask(99, 1, b"")[0] == errno.ENOSYS
    assert said == ["ready"]


def test_a_kernel_that_is_too_old_is_told_and_named(vfs: Vfs) -> None:
    with serving(vfs, EngineOptions("source")) as (kernel, said):
        assert kernel.ask(Opcode.INIT, 0, struct.pack("=IIII", 7, 23, 131072, 0)) == (errno.EPROTO, b"")
    assert said == ["the kernel speaks FUSE 7.23, not 7.31; mount with --engine libfuse"]


def test_requests_are_counted(vfs: Vfs) -> None:
    with serving(vfs, EngineOptions("source")) as (kernel, _):
        kernel.ask(Opcode.INIT, 0, struct.pack("=IIII48x", 7, 45, 131072, 0))
        before = vfs.counters["engine"]()
        kernel.ask(Opcode.GETATTR, 1, bytes(16))
        kernel.ask(Opcode.GETXATTR, 1, struct.pack("=II", 0, 0) + b"security.selinux\0")
        after = vfs.counters["engine"]()
    assert (after.requests - before.requests, after.at_once - before.at_once) == (2, 1)
