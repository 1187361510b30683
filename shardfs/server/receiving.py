"""Request bodies, bounded: into memory when small, into a file when large.

A large one is a pack. The file has the name of the pack, and stays when the connection breaks: the client goes on from
its end. Nothing in it is trusted before all of it is there and verified.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiohttp import HttpVersion11, web

from shardfs.errors import FormatError, LockedError, MalformedError, OutOfSpaceError
from shardfs.formats import wire
from shardfs.formats.ids import PackId
from shardfs.store import atomic
from shardfs.store.layout import Layout

Runner = Callable[..., asyncio.Future[Any]]

IDLE_S: Final = 60.0  # seconds that a client may send nothing in the middle of a body
CONTINUE: Final = "100-continue"
_BLOCK_SIZE: Final = 1 << 20  # bytes handed to a thread at once; what a kill of the server loses
_MARGIN: Final = 64 << 20  # bytes of disk that an upload must leave free
_PART: Final = "part-"  # begins the names of files of packs that are coming in
_SILENT_S: Final = 1.0  # without a byte, after which another connection may go on with the same pack
_USELESS: Final = (FormatError, OutOfSpaceError, web.HTTPRequestEntityTooLarge)
"""After these the bytes that came are of no use, or in the way."""


def check_length(request: web.Request, limit: int) -> None:
    """Refuse a body that declares more than `limit` bytes before any of it is read.

    Raises:
        web.HTTPRequestEntityTooLarge: it does.
    """
    if request.content_length is not None and request.content_length > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=request.content_length)


def whole_size(request: web.Request) -> int | None:
    """Bytes of the pack that a body is the rest of; None when the client does not say.

    Raises:
        MalformedError: the range that the body is does not reach the end of the pack.
    """
    return _begin_and_end(request)[1]


async def read_small(request: web.Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes.

    Raises:
        web.HTTPRequestEntityTooLarge: longer. web.HTTPRequestTimeout: the client stopped sending.
    """
    check_length(request, limit)
    await _go_on(request)
    pieces: list[bytes] = []
    size = 0
    while piece := await _next_piece(request):
        size += len(piece)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        pieces.append(piece)
    return b"".join(pieces)


class Upload:
    """A pack that is coming in.

    Args:
        path: the file that it goes to. What is in it already came earlier, from this client or another one.
        run: runs disk work on a thread.
    """

    def __init__(self, path: Path, run: Runner) -> None:
        self.path = path
        self.ended = asyncio.Event()
        self.is_complete = False
        self.position = 0  # bytes from the start of the pack that came; in the file once this ended
        self._run = run
        self._fd: int | None = None
        self._heard = time.monotonic()
        self._waiting: asyncio.Timeout | None = None
        self._is_unwanted = False

    @property
    def is_silent(self) -> bool:
        """Whether the client sends nothing: most often its connection is gone, and the server cannot know yet."""
        return not self.is_complete and time.monotonic() - self._heard > _SILENT_S

    def give_up(self) -> None:
        """Let the client that sends this go; `ended` says when nothing is written any more."""
        self._is_unwanted = True
        if self._waiting is not None:
            self._waiting.reschedule(0)

    async def receive(self, request: web.Request, limit: int) -> None:
        """Write the body to the file, fsynced, from where `Content-Range` says; what came stays when the rest does not.

        No other process writes to the file before `close`.

        Raises:
            web.HTTPRequestEntityTooLarge: the pack is longer than `limit`. web.HTTPRequestTimeout: the client stopped
            sending. web.HTTPRequestRangeNotSatisfiable: not so much is here. MalformedError: not such a range.
            LockedError: another process receives this pack. OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
        """
        offset, total = _begin_and_end(request)
        length = request.content_length
        if max(offset + (length or 0), total or 0) > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=length or 0)
        if length is not None and total is not None and offset + length != total:
            raise _wrong_size(offset + length, total)
        fd = self._fd = await self._run(_open, self.path)
        await self._run(_check_space, self.path.parent, length or 0)
        if offset > os.fstat(fd).st_size:
            raise web.HTTPRequestRangeNotSatisfiable(text=f"bytes {offset} and on of a pack that is not here")
        self.position = os.lseek(fd, offset, os.SEEK_SET)
        await _go_on(request)
        size = offset + await self._copy(request, fd, (total or limit) - offset)
        if total not in (None, size):
            raise _wrong_size(size, total)
        await self._run(_finish, fd, size)
        self.is_complete = True

    def close(self, *, is_useless: bool) -> None:
        """Let go of the file, which stays for the next attempt unless it is of no use; the files of others stay."""
        if self._fd is not None:
            with suppress(OSError):
                if is_useless and os.path.samestat(os.fstat(self._fd), self.path.stat()):
                    self.path.unlink()
            os.close(self._fd)

    async def _copy(self, request: web.Request, fd: int, limit: int) -> int:
        """Write the body as it comes, one block to the disk while the next one is read; returns its bytes."""
        size = 0
        block = bytearray()
        writing: asyncio.Future[None] | None = None
        try:
            while piece := await self._next_piece(request):
                block += piece
                size += len(piece)
                self.position += len(piece)
                if size > limit:
                    raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
                if len(block) >= _BLOCK_SIZE:
                    if writing is not None:
                        await writing
                    writing, block = self._run(_write, fd, block), bytearray()
        finally:
            if writing is not None:
                await asyncio.wait([writing])
                writing.result()
            await self._run(_write, fd, block)
        return size

    async def _next_piece(self, request: web.Request) -> bytes:
        try:
            async with asyncio.timeout(0 if self._is_unwanted else IDLE_S) as self._waiting:
                piece = await request.content.readany()
        except TimeoutError:
            raise web.HTTPRequestTimeout(text="the body stopped coming") from None
        finally:
            self._waiting = None
        self._heard = time.monotonic()
        return piece


async def _go_on(request: web.Request) -> None:
    """Let a client send its body that asked before whether it is wanted."""
    if request.headers.get("Expect", "").lower() == CONTINUE and request.version >= HttpVersion11:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def _next_piece(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(IDLE_S):
            return await request.content.readany()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body stopped coming") from None


class Uploads:
    """The packs that are coming in. Used on the event loop.

    Args:
        run: runs disk work on a thread.
    """

    def __init__(self, run: Runner) -> None:
        self._run = run
        self._active: dict[Path, Upload] = {}

    async def offset(self, layout: Layout, pack_id: PackId) -> int:
        """How many bytes from the start of a pack need not be sent again; none while another client sends it.

        Whoever asks may be the client whose connection broke a moment ago, so that is waited for.
        """
        path = _part(layout, pack_id)
        active = self._active.get(path)
        if active is not None and not active.is_complete:
            with suppress(TimeoutError):
                await asyncio.wait_for(active.ended.wait(), _SILENT_S)
            if not active.ended.is_set() and not active.is_complete:
                return active.position if active.is_silent else 0
        with suppress(OSError):
            return path.stat().st_size
        return 0

    @asynccontextmanager
    async def begin(self, layout: Layout, pack_id: PackId) -> AsyncIterator[Upload]:
        """A place for a pack; the file is gone afterwards, or kept for the next attempt if that can go on with it."""
        path = _part(layout, pack_id)
        while (other := self._active.get(path)) is not None:
            if not other.is_complete and not other.is_silent:
                path = await self._run(atomic.temp_name, layout.tmp)  # two clients that send the same pack at once
                break
            if not other.is_complete:
                other.give_up()
            await other.ended.wait()
        upload = self._active[path] = Upload(path, self._run)
        is_useless = False
        try:
            await self._run(_make_room, layout.tmp)
            try:
                yield upload
            except BaseException as error:
                is_useless = isinstance(error, _USELESS) or path.name != _part(layout, pack_id).name
                raise
        finally:
            upload.close(is_useless=is_useless)
            del self._active[path]
            upload.ended.set()


def unfinished(layout: Layout) -> dict[bytes, int]:
    """Bytes on the disk of packs that did not arrive as a whole, or not yet, by id."""
    found: dict[bytes, int] = {}
    for path in layout.tmp.glob(f"{_PART}*"):
        with suppress(OSError, ValueError):  # arrived meanwhile; not of this server
            found[bytes.fromhex(path.name.removeprefix(_PART))] = path.stat().st_size
    return found


def _part(layout: Layout, pack_id: PackId) -> Path:
    return layout.tmp / f"{_PART}{pack_id.hex()}"


def _begin_and_end(request: web.Request) -> tuple[int, int | None]:
    """Where in the pack a body begins, and the size of the pack if the client says it."""
    text = request.headers.get("Content-Range")
    return (0, request.content_length) if text is None else wire.parse_rest_of(text)


def _wrong_size(size: int, total: int | None) -> MalformedError:
    return MalformedError(f"{size} bytes of a pack of {total}")


def _make_room(tmp: Path) -> None:
    """Delete what nobody went on with for a day."""
    with atomic.writing("cannot receive a pack"):
        tmp.mkdir(exist_ok=True)
    atomic.remove_stale(tmp)


def _open(path: Path) -> int:
    """The file of an upload, which no other process receives into.

    Raises:
        LockedError: one does, or did until now.
    """
    with atomic.writing("cannot receive a pack"):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), path.stat()):  # a pack already, which never changes
            raise BlockingIOError
    except OSError as error:
        os.close(fd)
        msg = "another process is receiving this pack"
        raise LockedError(msg) from error
    return fd


def _check_space(folder: Path, size: int) -> None:
    status = os.statvfs(folder)
    if status.f_bavail * status.f_frsize < size + _MARGIN:
        msg = "the server's disk is full"
        raise OutOfSpaceError(msg)


def _write(fd: int, block: bytearray) -> None:
    with atomic.writing("cannot receive a pack"), memoryview(block) as view:
        done = 0
        while done < len(view):
            done += os.write(fd, view[done:])


def _finish(fd: int, size: int) -> None:
    """Cut off what an earlier attempt left beyond the end, and make all of it durable."""
    with atomic.writing("cannot receive a pack"):
        os.ftruncate(fd, size)
        os.fsync(fd)
