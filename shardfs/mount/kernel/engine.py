"""Serving a mount: one thread receives requests and answers what needs only memory; workers answer the rest."""

from __future__ import annotations

import errno
import logging
import os
import select
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from shardfs.errors import MountError
from shardfs.mount.kernel import channel as channels
from shardfs.mount.kernel.channel import Channel
from shardfs.mount.kernel.encode import Encoder
from shardfs.mount.kernel.greeting import MAX_SIZE, agree
from shardfs.mount.kernel.interrupts import Pending
from shardfs.mount.kernel.messages import (
    BATCH_FORGET_IN,
    FORGET_IN,
    FORGET_ONE,
    IN_HEADER,
    INTERRUPT_IN,
    Init,
    Opcode,
)
from shardfs.mount.kernel.notices import Notices
from shardfs.mount.kernel.operations import Operations
from shardfs.mount.kernel.passthrough import Passthrough
from shardfs.mount.kernel.request import Reply, Request
from shardfs.mount.kernel.table import Table
from shardfs.mount.kernel.workers import STUCK_S, Workers
from shardfs.mount.options import EngineOptions
from shardfs.mount.vfs import Vfs

_log = logging.getLogger(__name__)

_BUFFER_SIZE: Final = MAX_SIZE + 4096  # the headers of a write come on top
_SMALL: Final = 64 << 10  # bytes; larger requests are not copied, a worker gets the whole buffer
_SPARE: Final = 4  # buffers that are kept for the next large requests


class Counters(NamedTuple):
    """What the engine did.

    Attributes:
        requests: that the kernel sent and wants answers to.
        at_once: of them, answered from memory without a worker.
        passed_through: files opened so that the kernel reads them itself.
        refused: plain files that the kernel did not take.
        passthrough: whether the kernel reads plain files itself.
    """

    requests: int
    at_once: int
    passed_through: int
    refused: int
    passthrough: bool


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
        Engine(vfs, channel, options, ready).run()
    finally:
        channel.close()


class Engine:
    """Serves one connection."""

    def __init__(self, vfs: Vfs, channel: Channel, options: EngineOptions, ready: Callable[[], None]) -> None:
        """As `serve`, over a channel that is not closed."""
        self._vfs = vfs
        self._channel = channel
        self._options = options
        self._ready = ready
        self._table = Table(vfs)
        self._passthrough = Passthrough(channel)
        encoder = Encoder(os.getuid(), os.getgid())
        self._operations = Operations(vfs, self._table, encoder, self._passthrough)
        self._pending = Pending()
        self._workers = Workers(self._work)
        self._aside = Workers(self._work)  # for questions about the mount, while all others wait for a remote
        self._notices = Notices(vfs, channel, self._table)
        self._spare: list[bytearray] = []
        self._incoming = select.poll()
        self._incoming.register(channel.fd, select.POLLIN)
        self._requests = self._at_once = 0
        vfs.counters["engine"] = self.counters

    def counters(self) -> Counters:
        """So far."""
        passthrough = self._passthrough
        return Counters(self._requests, self._at_once, passthrough.opened, passthrough.refused, passthrough.is_on)

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
            self._aside.stop()

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
        else:
            self._requests += 1
            if self._asks(self._operations.is_quick, request):
                self._at_once += 1
                self._answer(request, lambda: True)
            else:
                self._pending.add(request)
                workers = self._aside if self._asks(self._operations.is_about_mount, request) else self._workers
                workers.put(request)

    def _asks(self, question: Callable[[Request], bool], request: Request) -> bool:
        try:
            return question(request)
        except KeyError:
            return False  # a worker fails with it: this thread has to go on

    def _greet(self, request: Request) -> None:
        """INIT: agree on a protocol and begin."""
        try:
            agreed = agree(request.body, self._options)
        except MountError:
            self._channel.fail(request.unique, errno.EPROTO)
            raise
        self._channel.reply(request.unique, (agreed.answer,))
        self._passthrough.is_on = Init.PASSTHROUGH in agreed.abilities
        if not self._options.safe:  # else what changes is seen when the times of `policy` are over
            self._notices.start(can_expire=agreed.can_expire)
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
        told = is_mine() and (
            self._channel.fail(request.unique, code) if code else self._channel.reply(request.unique, reply)
        )
        if request.undo is not None and (code or not told):
            with suppress(OSError):  # the vfs has noted why
                request.undo()
