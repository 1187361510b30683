"""Request bodies, bounded: into memory when small, into a file when large."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from shardfs.errors import OutOfSpaceError
from shardfs.store import atomic

IDLE_S: Final = 60.0  # seconds that a client may send nothing in the middle of a body
_BLOCK_SIZE: Final = 4 << 20  # bytes handed to a thread at once
_MARGIN: Final = 64 << 20  # bytes of disk that an upload must leave free


def check_length(request: web.Request, limit: int) -> None:
    """Refuse a body that declares more than `limit` bytes before any of it is read.

    Raises:
        web.HTTPRequestEntityTooLarge: it does.
    """
    if request.content_length is not None and request.content_length > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=request.content_length)


async def read_small(request: web.Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes.

    Raises:
        web.HTTPRequestEntityTooLarge: longer. web.HTTPRequestTimeout: the client stopped sending.
    """
    check_length(request, limit)
    pieces: list[bytes] = []
    size = 0
    while piece := await _next_piece(request):
        size += len(piece)
        if size > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
        pieces.append(piece)
    return b"".join(pieces)


async def read_to_file(request: web.Request, path: Path, limit: int, run: Callable[..., asyncio.Future[None]]) -> None:
    """Write the body to a new file, fsynced. Disk work happens in `run`'s threads.

    Raises:
        web.HTTPRequestEntityTooLarge: longer than `limit`. web.HTTPRequestTimeout: the client stopped sending.
        OutOfSpaceError, ReadOnlyError, StoreError: by the disk.
    """
    check_length(request, limit)
    await run(_check_space, path.parent, request.content_length or 0)
    with atomic.writing("cannot receive a pack"):
        file = path.open("xb", buffering=0)
    try:
        await _copy(request, file.fileno(), limit, run)
        await run(_sync, file.fileno())
    finally:
        file.close()


async def _copy(request: web.Request, fd: int, limit: int, run: Callable[..., asyncio.Future[None]]) -> None:
    """Write the body as it comes; one block is on its way to the disk while the next one is read."""
    size = 0
    block = bytearray()
    writing: asyncio.Future[None] | None = None
    try:
        while piece := await _next_piece(request):
            block += piece
            size += len(piece)
            if size > limit:
                raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=size)
            if len(block) >= _BLOCK_SIZE:
                if writing is not None:
                    await writing
                writing, block = run(_write, fd, block), bytearray()
    finally:
        if writing is not None:
            await asyncio.wait([writing])
    if writing is not None:
        await writing
    await run(_write, fd, block)


async def _next_piece(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(IDLE_S):
            return await request.content.readany()
    except TimeoutError:
        raise web.HTTPRequestTimeout(text="the body stopped coming") from None


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


def _sync(fd: int) -> None:
    with atomic.writing("cannot receive a pack"):
        os.fsync(fd)
