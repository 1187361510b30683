"""Serving a mount: one thread receives requests and answers what needs only memory; workers answer the rest."""

from __future__ import annotations

import errno
import logging
import os
import select
from collections.abc import Callable
from typing import Final

from shardfs.errors import MountError
from shardfs.mount.kernel import channel as channels
from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.encode import Encoder
from shardfs.mount.kernel.interrupts import Pending
from shardfs.mount.kernel.messages import (
    BATCH_FORGET_IN,
    EXPIRE_MINOR,
    FORGET_IN,
    FORGET_ONE,
    IN_HEADER,
    INIT_IN,
    INIT_OUT,
    INTERRUPT_IN,
    MAJOR,
    MINOR,
    OLDEST_MINOR,
    Init,
    Opcode,
)
from shardfs.mount.kernel.notices import Notices
from shardfs.mount.kernel.operations import Operations
from shardfs.mount.kernel.request import Reply, Request
from shardfs.mount.kernel.table import Table
from shardfs.mount.kernel.workers import STUCK_S, Workers
from shardfs.mount.options import EngineOptions
from shardfs.mount.vfs import Vfs

_log = logging.getLogger(__name__)

_MAX_SIZE: Final = 1 << 20  # bytes of one read or write; more needs a changed sysctl fs.fuse.max_pages_limit
_PAGE: Final = 4096
_BUFFER_SIZE: Final = _MAX_SIZE + _PAGE  # the headers of a write come on top
_MAX_BACKGROUND: Final = 64  # readahead requests in flight
_SMALL: Final = 64 << 10  # bytes; larger requests are not copied, a worker gets the whole buffer
_SPARE: Final = 4  # buffers that are kept for the next large requests
_WANTED: Final = (
    Init.ASYNC_READ
    | Init.ATOMIC_O_TRUNC
    | Init.BIG_WRITES
    | Init.AUTO_INVAL_DATA
    | Init.DO_READDIRPLUS
    | Init.READDIRPLUS_AUTO
    | Init.ASYNC_DIO
    | Init.PARALLEL_DIROPS
    | Init.POSIX_ACL  # there are none, but so the kernel remembers that
    | Init.ABORT_ERROR
    | Init.MAX_PAGES
    | Init.CACHE_SYMLINKS
    | Init.HANDLE_KILLPRIV_V2
)


def serve(vfs: Vfs, mountpoint: str, options: EngineOptions, ready: Callable[[], None]) -> None:
    """Mount and serve until the mount ends.

    Args:
        vfs: what to show.
        mountpoint: an existing directory.
        options: how to mount.
        ready: called once when the mount can be used, on a thread that must not be kept.

    Raises:
        MountError: the mount could not be made.
    """
    channel = channels.connect(mountpoint, options)
    try:
        _Engine(vfs, channel, ready).run()
    finally:
        channel.close()


class _Engine:
    def __init__(self, vfs: Vfs, channel: Channel, ready: Callable[[], None]) -> None:
        self._vfs = vfs
        self._channel = channel
        self._ready = ready
        self._table = Table(vfs)
        self._operations = Operations(vfs, self._table, Encoder(os.getuid(), os.getgid()))
        self._pending = Pending()
        self._workers = Workers(self._work)
        self._notices = Notices(vfs, channel, self._table)
        self._spare: list[bytearray] = []
        self._incoming = select.poll()
        self._incoming.register(channel.fd, select.POLLIN)

    def run(self) -> None:
        """Receive requests until there are no more."""
        buffer = bytearray(_BUFFER_SIZE)
        try:
            while (size := self._receive(buffer)) > 0:
                opcode, unique, nodeid, pid = channels.header(buffer)
                small = size <= _SMALL
                whole = memoryview(buffer)[:size]
                body = bytes(whole[IN_HEADER.size :]) if small else whole[IN_HEADER.size :]
                request = Request(opcode, unique, nodeid, pid, body)
                if opcode == Opcode.DESTROY:
                    self._channel.reply(unique)
                    break
                self._take(request)
                if not small:
                    buffer = self._spare.pop() if self._spare else bytearray(_BUFFER_SIZE)
        finally:
            self._notices.stop()
            self._workers.stop()

    def _receive(self, buffer: bytearray) -> int:
        """The next request. While others wait for a worker or to be given up, wakes up to look after them."""
        while self._workers.are_behind or self._pending.has_interrupted:
            for request in self._pending.abandoned():
                self._channel.fail(request.unique, errno.EINTR)
            self._workers.relieve()
            if self._incoming.poll(STUCK_S * 1000):
                break
        return self._channel.receive(buffer)

    def _take(self, request: Request) -> None:
        opcode = request.opcode
        if opcode == Opcode.FORGET:
            self._table.forget(request.nodeid, FORGET_IN.unpack_from(request.body)[0])
        elif opcode == Opcode.BATCH_FORGET:
            count, _ = BATCH_FORGET_IN.unpack_from(request.body)
            end = BATCH_FORGET_IN.size + count * FORGET_ONE.size
            for id_, lookups in FORGET_ONE.iter_unpack(request.body[BATCH_FORGET_IN.size : end]):
                self._table.forget(id_, lookups)
        elif opcode == Opcode.INTERRUPT:
            self._pending.interrupt(INTERRUPT_IN.unpack_from(request.body)[0])
        elif opcode == Opcode.INIT:
            self._greet(request)
        elif self._is_quick(request):
            self._answer(request, lambda: True)
        else:
            self._pending.add(request)
            self._workers.put(request)

    def _is_quick(self, request: Request) -> bool:
        try:
            return self._operations.is_quick(request)
        except KeyError:
            return False  # a worker fails with it: this thread has to go on

    def _greet(self, request: Request) -> None:
        """INIT: agree on a protocol and begin."""
        major, minor, readahead, flags = INIT_IN.unpack_from(request.body)
        if (major, minor) < (MAJOR, OLDEST_MINOR):
            self._channel.fail(request.unique, errno.EPROTO)
            msg = f"the kernel speaks FUSE {major}.{minor}, not {MAJOR}.{OLDEST_MINOR}; mount with --engine libfuse"
            raise MountError(msg)
        limits = (_MAX_BACKGROUND, _MAX_BACKGROUND * 3 // 4, _MAX_SIZE, 1, _MAX_SIZE // _PAGE, 0, 0)
        readahead = max(readahead, _MAX_SIZE)
        self._channel.reply(request.unique, (INIT_OUT.pack(MAJOR, MINOR, readahead, flags & _WANTED, *limits),))
        self._notices.start(can_expire=minor >= EXPIRE_MINOR)
        self._ready()

    def _work(self, request: Request) -> None:
        self._answer(request, lambda: self._pending.take(request))
        body = request.body
        if isinstance(body, memoryview) and isinstance(body.obj, bytearray) and len(self._spare) < _SPARE:
            self._spare.append(body.obj)

    def _answer(self, request: Request, is_mine: Callable[[], bool]) -> None:
        """Answer a request, unless somebody else has done so."""
        code = 0
        reply: Reply = ()
        try:
            reply = self._operations.answer(request)
        except OSError as error:
            code = error.errno or errno.EIO
        except BaseException as error:  # noqa: BLE001 - the program must not wait for ever
            _log.exception("request %d failed", request.opcode)
            self._vfs.causes.record(f"request {request.opcode}", errno.EIO, error)
            code = errno.EIO
        if code:
            if is_mine():
                self._channel.fail(request.unique, code)
        elif not (is_mine() and self._channel.reply(request.unique, reply)) and request.undo is not None:
            request.undo()
