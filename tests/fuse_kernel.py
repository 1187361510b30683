"""A kernel for tests of the engine that speaks to one."""

from __future__ import annotations

import itertools
import struct

from shardfs.mount.kernel.encode import Encoder
from shardfs.mount.kernel.messages import ENTRY_OUT, Opcode
from shardfs.mount.kernel.operations import Operations
from shardfs.mount.kernel.request import Request
from shardfs.mount.kernel.table import Known, Table
from shardfs.mount.vfs import Vfs


class Kernel:
    """What a kernel does with the engine's answers, without one."""

    def __init__(self, vfs: Vfs) -> None:
        self.table = Table(vfs)
        self.operations = Operations(vfs, self.table, Encoder(1000, 1000))
        self._uniques = itertools.count(2, 2)

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
