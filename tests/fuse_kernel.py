"""A kernel for tests of the engine that speaks to one."""

from __future__ import annotations

import itertools
import os
import struct
from collections import Counter

from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.encode import Encoder
from shardfs.mount.kernel.messages import ENTRY_OUT, HANDLE_IN, OPEN_OUT, Opcode, OpenFlag
from shardfs.mount.kernel.operations import Operations
from shardfs.mount.kernel.passthrough import Passthrough
from shardfs.mount.kernel.request import Request
from shardfs.mount.kernel.table import Known, Table
from shardfs.mount.vfs import Vfs


class BackingFiles(Channel):
    """The part of a connection that knows plain files.

    Attributes:
        inodes: by number, inode numbers of the plain files that are known.
        refuse: errno of the answer to the next ones.
    """

    def __init__(self) -> None:
        super().__init__(-1)
        self.inodes: dict[int, int] = {}
        self.refuse = 0
        self._numbers = itertools.count(1)

    def open_backing(self, fd: int) -> int:
        if self.refuse:
            raise OSError(self.refuse, os.strerror(self.refuse))
        number = next(self._numbers)
        self.inodes[number] = os.fstat(fd).st_ino
        return number

    def close_backing(self, number: int) -> None:
        del self.inodes[number]


class Kernel:
    """What a kernel does with the engine's answers, without one."""

    def __init__(self, vfs: Vfs) -> None:
        self.table = Table(vfs)
        self.backing = BackingFiles()
        self.passthrough = Passthrough(self.backing)
        self.operations = Operations(vfs, self.table, Encoder(1000, 1000), self.passthrough)
        self._uniques = itertools.count(2, 2)
        self._modes: Counter[tuple[int, int]] = Counter()  # open files by node and backing file

    def request(self, opcode: int, nodeid: int, body: bytes = b"") -> Request:
        return Request(opcode, next(self._uniques), nodeid, 0, body)

    def ask(self, opcode: int, nodeid: int, body: bytes = b"") -> bytes:
        return b"".join(self.operations.answer(self.request(opcode, nodeid, body)))

    def lookup(self, path: str) -> int:
        """The number of a node; 0 where the kernel was told that there is none."""
        nodeid = 1
        for name in path.split("/"):
            answer = self.ask(Opcode.LOOKUP, nodeid, name.encode() + b"\0")
            nodeid = int(ENTRY_OUT.unpack_from(answer)[0])
        return nodeid

    def known(self, path: str) -> Known:
        """What the engine remembers of a node."""
        return self.table.get(self.lookup(path))

    def open(self, nodeid: int, flags: int = 0) -> int:
        """The number of an open file."""
        return int(struct.unpack_from("=Q", self.ask(Opcode.OPEN, nodeid, struct.pack("=II", flags, 0)))[0])

    def open_mode(self, nodeid: int, flags: int = os.O_RDONLY) -> tuple[int, int]:
        """Open as the kernel does, by the rules of fs/fuse/iomode.c: open file, and number of its backing file or 0."""
        number, how, backing = OPEN_OUT.unpack(self.ask(Opcode.OPEN, nodeid, struct.pack("=II", flags, 0)))
        if how & OpenFlag.PASSTHROUGH:
            assert not how & ~(OpenFlag.PASSTHROUGH | OpenFlag.NOFLUSH)
            assert backing in self.backing.inodes
        else:
            assert not backing
        others = {mode for (node, mode), count in self._modes.items() if node == nodeid and count}
        assert others <= {backing}, "open(2) fails with EIO"
        self._modes[nodeid, backing] += 1
        return number, backing

    def close_mode(self, nodeid: int, number: int, backing: int) -> None:
        """Close what `open_mode` opened: the kernel lets go of it before it tells."""
        self._modes[nodeid, backing] -= 1
        self.ask(Opcode.RELEASE, nodeid, HANDLE_IN.pack(number))
