"""A cache of another server for the machines around it: the same endpoints for reading, each byte fetched once.

Spec: docs/reference/http-api.md, "Caches". What is asked of the other place is what any client asks, so that may be all
that a remote can be.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web

from shardfs.config import Settings
from shardfs.errors import (
    PackNotFoundError,
    ReadOnlyError,
    RefNotFoundError,
    RemoteDeniedError,
    RemoteError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    ShardfsError,
)
from shardfs.formats import pack as pack_format
from shardfs.formats import ref as ref_format
from shardfs.formats import wire
from shardfs.formats.ids import ID_SIZE, PackId
from shardfs.formats.pack import TRAILER_SIZE
from shardfs.formats.ref import PackSize
from shardfs.remotes import fresh
from shardfs.remotes.base import Remote
from shardfs.remotes.registry import open_remote
from shardfs.server.access import keep_private
from shardfs.server.endpoints import BINARY, FRESH, IMMUTABLE, Answer, Endpoints
from shardfs.server.peer_blocks import Blocks
from shardfs.server.peer_listings import Listing, Listings
from shardfs.server.receiving import read_small
from shardfs.server.routes import Target
from shardfs.store.cache import Cache

_log = logging.getLogger(__name__)

_PART: Final = 4 << 20  # bytes of an answer in memory at a time
_MAX_OPEN: Final = 64  # repositories of the other place to which there is a connection
_READING: Final = frozenset({"GET", "HEAD", "POST"})


class PeerCache:
    """What another place has, by repository. Blocking; safe to share between threads.

    Args:
        url: of the other place; the URL of a repository there is this, a slash and its name.
        cache: keeps blocks of packs; it stays the caller's.
        folder: where listings are kept.
        settings: of the connection.
    """

    def __init__(self, url: str, cache: Cache, folder: Path, settings: Settings) -> None:
        self._url = url.rstrip("/")
        self._settings = settings
        self._guard = threading.Lock()
        self._remotes: OrderedDict[str, Remote] = OrderedDict()
        self._listings = Listings(folder, self.remote)
        self.blocks = Blocks(cache)
        with_name = open_remote(f"{self._url}/name", name="upstream", settings=settings)
        self.shown_url = with_name.url.removesuffix("/name")
        with_name.close()

    def remote(self, repository: str) -> Remote:
        """The connection to a repository of the other place."""
        with self._guard:
            found = self._remotes.get(repository)
            if found is None:
                url = f"{self._url}/{repository}"
                found = self._remotes[repository] = open_remote(url, name="upstream", settings=self._settings)
                # The one that falls out closes with its last user: it may be in the middle of a request.
                if len(self._remotes) > _MAX_OPEN:
                    self._remotes.popitem(last=False)
            self._remotes.move_to_end(repository)
            return found

    def listing(self, repository: str) -> Listing:
        """See `Listings.get`."""
        return self._listings.get(repository)

    def pack(self, repository: str, id_: bytes) -> PackSize:
        """A pack of a repository.

        Raises:
            PackNotFoundError: the repository has no such pack. As `listing`.
        """
        # Packs never change: who reads on does not wait for a server that has fallen silent.
        last = self._listings.last(repository)
        found = last.packs.get(PackId(id_)) if last is not None else None
        found = found or self.listing(repository).packs.get(PackId(id_))
        if found is None:
            msg = f"no pack {id_.hex()}"
            raise PackNotFoundError(msg)
        return found

    def read(self, repository: str, pack: PackSize, offset: int, length: int, *, is_doubted: bool = False) -> bytes:
        """Bytes of a pack; `is_doubted`: those that are here were found wrong.

        Raises:
            PackNotFoundError, RemoteError: by the other place.
        """

        def source(begin: int, size: int) -> bytes:
            with fresh.demanded() if is_doubted else nullcontext():
                return self._available(repository).read_pack(pack.id, begin, size)

        return self.blocks.read(pack, offset, length, source, fresh=is_doubted)

    def has(self, repository: str, ids: Sequence[bytes]) -> list[bool]:
        """Which ids the other place has; errors as `read`."""
        return self._available(repository).has(ids)

    def table(self, repository: str, pack: PackSize) -> bytes:
        """Table and trailer of a pack; errors as `read`, and FormatError when they are damaged."""
        tail = self.read(repository, pack, pack.size - TRAILER_SIZE, TRAILER_SIZE)
        start = pack_format.parse_trailer(tail, pack.size).table_offset
        return self.read(repository, pack, start, pack.size - start)

    def _available(self, repository: str) -> Remote:
        """As `remote`, unless that is left alone now: who waits for a cache could ask somebody else meanwhile."""
        remote = self.remote(repository)
        if not getattr(remote, "available", True):
            msg = f"{remote.url} has failed and is left alone for a moment"
            raise RemoteUnavailableError(msg)
        return remote

    def close(self) -> None:
        """Let go of connections."""
        with self._guard:
            while self._remotes:
                self._remotes.popitem()[1].close()


class PeerHandlers(Endpoints):
    """The endpoints of a cache.

    Args:
        peer: what is served.
        threads: where blocking work runs.
    """

    def __init__(self, peer: PeerCache, threads: ThreadPoolExecutor) -> None:
        super().__init__(
            threads,
            {
                ("GET", "info"): self.get_listing,
                ("GET", "pack_file"): self.get_pack,
                ("GET", "pack_table"): self.get_pack_table,
                ("POST", "has"): self.post_has,
                ("GET", "ref"): self.get_ref,
            },
        )
        self._peer = peer

    def find(self, method: str, target: Target) -> Answer | None:
        """The handler for a method on a target.

        Raises:
            ReadOnlyError: the method would change something.
        """
        if method not in _READING:
            msg = f"this is a cache of {self._peer.shown_url}, which takes no changes; push there"
            raise ReadOnlyError(msg)
        found = super().find(method, target)
        return None if found is None else partial(self._answer, found)

    async def get_listing(self, _request: web.Request, target: Target) -> web.StreamResponse:
        """The listing of refs or packs, and how old it is."""
        listing = await self.run(self._peer.listing, target.repository)
        if target.listing == "refs":
            body = ref_format.refs_to_bytes(*listing.refs)
        else:
            body = await self.run(ref_format.packs_to_bytes, list(listing.packs.values()))
        return web.Response(body=body, content_type="application/json", headers=_as_of(listing))

    async def get_ref(self, _request: web.Request, target: Target) -> web.StreamResponse:
        """Where a ref is."""
        listing = await self.run(self._peer.listing, target.repository)
        commit = listing.refs.refs.get(target.ref)
        if commit is None:
            msg = f"no ref {target.ref}"
            raise RefNotFoundError(msg)
        headers = {"ETag": wire.entity_tag(commit), **_as_of(listing)}
        return web.Response(body=ref_format.ref_to_bytes(commit), content_type="text/plain", headers=headers)

    async def get_pack(self, request: web.Request, target: Target) -> web.StreamResponse:
        """A pack or a range of it."""
        pack = await self.run(self._peer.pack, target.repository, target.id)
        start, end, is_part = _range(request, pack)
        headers = {"Cache-Control": IMMUTABLE, "Accept-Ranges": "bytes", "Content-Type": BINARY}
        if is_part:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{pack.size}"
        answer = keep_private(request, web.StreamResponse(status=206 if is_part else 200, headers=headers))
        answer.content_length = end - start
        if request.method == "HEAD":
            await answer.prepare(request)
            return answer
        is_doubted = "no-cache" in request.headers.get("Cache-Control", "").lower()
        for begin in range(start, end, _PART):
            size = min(_PART, end - begin)
            try:
                data = await self.run(self._peer.read, target.repository, pack, begin, size, is_doubted=is_doubted)
            except ShardfsError as error:
                if begin == start:
                    raise
                # In the middle of a body only the end of the connection says that no more comes.
                _log.warning("an answer was cut short: %s", error)
                raise ConnectionResetError from error
            await answer.prepare(request)
            await answer.write(data)
        await answer.write_eof()
        return answer

    async def get_pack_table(self, _request: web.Request, target: Target) -> web.StreamResponse:
        """Table and trailer of a pack."""
        pack = await self.run(self._peer.pack, target.repository, target.id)
        data = await self.run(self._peer.table, target.repository, pack)
        return web.Response(body=data, content_type=BINARY, headers={"Cache-Control": IMMUTABLE})

    async def post_has(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Which ids the other place has."""
        ids = wire.ids_from_bytes(await read_small(request, wire.MAX_HAS_IDS * ID_SIZE))
        flags = await self.run(self._peer.has, target.repository, ids)
        return web.Response(body=wire.flags_to_bytes(flags), content_type=BINARY)

    async def _answer(self, handler: Answer, request: web.Request, target: Target) -> web.StreamResponse:
        """What a handler answers; that the other place failed is said as a gateway says it."""
        try:
            return await handler(request, target)
        except (RemoteUnavailableError, RemoteTimeoutError) as error:
            raise web.HTTPServiceUnavailable(text=str(error)) from error
        except RemoteDeniedError as error:
            # Not 502: a repeat gets no other answer before somebody gives this cache a token.
            raise web.HTTPForbidden(text=f"{self._peer.shown_url} does not let this cache in: {error}") from error
        except RemoteError as error:
            raise web.HTTPBadGateway(text=str(error)) from error


def _as_of(listing: Listing) -> dict[str, str]:
    return {"Cache-Control": FRESH, "Age": str(listing.age_s)}


def _range(request: web.Request, pack: PackSize) -> tuple[int, int, bool]:
    """Begin and end of the bytes that are asked for, and whether that is a range.

    Raises:
        web.HTTPRequestRangeNotSatisfiable: none of them exists.
    """
    try:
        asked = request.http_range
    except ValueError:
        asked = slice(None)
    if asked.start is None and asked.stop is None:
        return 0, pack.size, False
    start, end, _ = asked.indices(pack.size)
    if start >= end:
        raise web.HTTPRequestRangeNotSatisfiable(text=f"the pack has {pack.size} bytes")
    return start, end, True
