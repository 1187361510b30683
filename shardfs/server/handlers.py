"""What each endpoint does. Spec: docs/reference/http-api.md. Blocking work runs on the application's threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import LooseHeaders

from shardfs.errors import (
    FormatError,
    MalformedError,
    NotFoundError,
    PackCorruptedError,
    PackNotFoundError,
    RefNotFoundError,
)
from shardfs.formats import pack as pack_format
from shardfs.formats import ref as ref_format
from shardfs.formats import wire
from shardfs.formats.canonical import MAX_OBJECT_SIZE
from shardfs.formats.ids import ID_SIZE, CommitId, Kind, PackId, content_id
from shardfs.formats.manifest import MAX_CHUNK_SIZE, Manifest
from shardfs.formats.pack import MAX_PACK_SIZE, TRAILER_SIZE
from shardfs.formats.ref import BRANCHES, TAGS
from shardfs.server.access import Access, caller_of
from shardfs.server.endpoints import BINARY, FRESH, IMMUTABLE, Endpoints
from shardfs.server.moves import loses
from shardfs.server.quota import Quotas
from shardfs.server.receiving import Uploads, check_length, read_small, whole_size
from shardfs.server.recording import note
from shardfs.server.repositories import Repositories
from shardfs.server.routes import Target
from shardfs.store.plaintext import local_copies, read_plaintext
from shardfs.store.receive import receive_pack, receive_ref
from shardfs.store.store import Store


class Handlers(Endpoints):
    """The endpoints of one application.

    Args:
        repositories: what is served.
        threads: where blocking work runs.
        access: who may take something away.
        quotas: how much may be put in.
    """

    def __init__(self, repositories: Repositories, threads: ThreadPoolExecutor, access: Access, quotas: Quotas) -> None:
        self._repositories = repositories
        self._access = access
        self._quotas = quotas
        super().__init__(
            threads,
            {
                ("GET", "info"): self.get_listing,
                ("GET", "pack_file"): self.get_pack,
                ("GET", "pack_table"): self.get_pack_table,
                ("PUT", "pack"): self.put_pack,
                ("POST", "has"): self.post_has,
                ("GET", "ref"): self.get_ref,
                ("PUT", "ref"): self.put_ref,
                ("DELETE", "ref"): self.delete_ref,
                ("GET", "block"): partial(self.get_plaintext, kind=Kind.CHUNK),
                ("PUT", "block"): partial(self.put_plaintext, kind=Kind.CHUNK),
                ("GET", "manifest"): partial(self.get_plaintext, kind=Kind.MANIFEST),
                ("PUT", "manifest"): partial(self.put_plaintext, kind=Kind.MANIFEST),
            },
        )
        self._uploads = Uploads(self.run)

    # Listings and packs

    async def get_listing(self, _request: web.Request, target: Target) -> web.StreamResponse:
        """The listing of refs or packs."""
        layout = self._repositories.layout(target.repository)
        if not self._repositories.is_open(target.repository):
            await self._repositories.store(target.repository)
        path = layout.info_refs if target.listing == "refs" else layout.info_packs
        headers = {"Content-Type": "application/json", "Cache-Control": FRESH}
        return _StoredFile(path, headers=headers)

    async def get_pack(self, request: web.Request, target: Target) -> web.StreamResponse:
        """A pack or a range of it, by sendfile."""
        # Looking at two inodes here takes less time than handing that to a thread: half of a small range's latency.
        try:
            path = self._pack_path(target)
        except PackNotFoundError:
            if request.method == "HEAD":
                layout = self._repositories.layout(target.repository)
                if offset := await self._uploads.offset(layout, PackId(target.id)):
                    return web.Response(status=404, headers={"Upload-Offset": str(offset)})
            raise
        headers = {"Content-Type": BINARY, "Cache-Control": IMMUTABLE}
        return _StoredFile(path, chunk_size=1 << 20, headers=headers)

    async def get_pack_table(self, _request: web.Request, target: Target) -> web.StreamResponse:
        """Table and trailer of a pack."""
        data = await self.run(lambda: _read_table(self._pack_path(target)))
        return _immutable(data, target.id)

    async def put_pack(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Receive a pack: nothing is visible before every byte has been verified and is durable."""
        store = await self._repositories.writable(target.repository)
        pack_id = PackId(target.id)
        check_length(request, MAX_PACK_SIZE)
        async with self._uploads.begin(store.layout, pack_id) as upload:
            with await self.run(self._quotas.reserve, target.repository, store, pack_id, whole_size(request)):
                await upload.receive(request, MAX_PACK_SIZE)
                pack = await self.run(receive_pack, store, upload.path, pack_id)
        return web.json_response({"id": pack_id.hex(), "size": pack.size, "entries": len(pack.entries)}, status=201)

    async def post_has(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Which ids are here."""
        store = await self._repositories.store(target.repository)
        ids = wire.ids_from_bytes(await read_small(request, wire.MAX_HAS_IDS * ID_SIZE))
        here = await self.run(store.index.has, ids, local=True)
        return web.Response(body=wire.flags_to_bytes(id_ in here for id_ in ids), content_type=BINARY)

    def _pack_path(self, target: Target) -> Path:
        path = self._repositories.layout(target.repository).pack(target.id)
        if not path.is_file():
            msg = f"no pack {target.id.hex()}"
            raise PackNotFoundError(msg)
        return path

    # Refs

    async def get_ref(self, _request: web.Request, target: Target) -> web.StreamResponse:
        """Where a ref is, as its file says."""
        store = await self._repositories.store(target.repository)
        commit = await self.run(store.refs.get, target.ref)
        if commit is None or not target.ref.startswith((BRANCHES, TAGS)):
            msg = f"no ref {target.ref}"
            raise RefNotFoundError(msg)
        headers = {"ETag": wire.entity_tag(commit), "Cache-Control": FRESH}
        return web.Response(body=ref_format.ref_to_bytes(commit), content_type="text/plain", headers=headers)

    async def put_ref(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Move a ref, when it is where the client believes and all that it will name is here."""
        old = _expected(request)
        body = await read_small(request, 128)
        new = ref_format.ref_from_bytes(body if body.endswith(b"\n") else body + b"\n")
        note(request, old=None if old is None else old.hex(), new=new.hex())
        store = await self._repositories.writable(target.repository)
        if old is not None and await self.run(loses, store, target.ref, old, new):
            self._access.check_loss(request, target)
        await self.run(receive_ref, store, target.ref, old, new, by=caller_of(request).author)
        headers = {"ETag": wire.entity_tag(new)}
        return web.json_response({"ref": target.ref, "commit": new.hex()}, headers=headers)

    async def delete_ref(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Delete a ref, when it is where the client believes."""
        old = _expected(request)
        if old is None:
            msg = "DELETE needs If-Match with the commit that the ref is at"
            raise MalformedError(msg)
        note(request, old=old.hex())
        await self.run(self._repositories.layout, target.repository)
        store = await self._repositories.writable(target.repository)
        await self.run(receive_ref, store, target.ref, old, None, by=caller_of(request).author)
        return web.json_response({"ref": target.ref, "commit": None})

    # Single chunks and manifests

    async def get_plaintext(self, request: web.Request, target: Target, *, kind: Kind) -> web.StreamResponse:
        """The verified plaintext of a chunk or manifest; HEAD only asks whether it is here."""
        store = await self._repositories.store(target.repository)
        if request.method == "HEAD":
            size = await self.run(_raw_size, store, target.id, kind)
            return web.Response(headers={**_immutable_headers(target.id), "Content-Length": str(size)})
        return _immutable(await self.run(read_plaintext, store, target.id, kind), target.id)

    async def put_plaintext(self, request: web.Request, target: Target, *, kind: Kind) -> web.StreamResponse:
        """Receive one chunk or manifest as plaintext; it becomes a pack of its own."""
        limit = MAX_CHUNK_SIZE if kind is Kind.CHUNK else MAX_OBJECT_SIZE
        store = await self._repositories.writable(target.repository)
        with await self.run(self._quotas.reserve, target.repository, store, target.id, request.content_length):
            body = await read_small(request, limit)
            await self.run(_store_plaintext, store, target.id, kind, body)
        return web.json_response({"id": target.id.hex(), "size": len(body)}, status=201)


class _StoredFile(web.FileResponse):
    """A file that was there a moment ago. That it cannot be opened, most often for want of descriptors, is no 404."""

    def set_status(self, status: int, reason: str | None = None) -> None:
        super().set_status(503 if status in (403, 404) else status, reason)


def _expected(request: web.Request) -> CommitId | None:
    """Where the client believes a ref to be; None: that it does not exist.

    Raises:
        web.HTTPPreconditionRequired: the client does not say. MalformedError: not one quoted id or `*`.
    """
    match, none_match = request.headers.get("If-Match"), request.headers.get("If-None-Match")
    if none_match is not None and match is None and none_match.strip() == "*":
        return None
    if match is None or none_match is not None:
        msg = 'send If-Match: "<commit>" to move a ref or If-None-Match: * to create it'
        raise web.HTTPPreconditionRequired(text=msg)
    return wire.parse_entity_tag(match)


def _immutable_headers(id_: bytes) -> dict[str, str]:
    return {"Cache-Control": IMMUTABLE, "ETag": f'"{id_.hex()}"'}


def _immutable(data: bytes, id_: bytes) -> web.Response:
    headers: LooseHeaders = _immutable_headers(id_)
    return web.Response(body=data, content_type=BINARY, headers=headers)


def _read_table(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            tail = os.pread(file.fileno(), TRAILER_SIZE, max(0, size - TRAILER_SIZE))
            start = pack_format.parse_trailer(tail, size).table_offset
            return os.pread(file.fileno(), size - start, start)
    except FileNotFoundError as error:  # deleted since it was looked for
        msg = f"no pack {path.stem}"
        raise PackNotFoundError(msg) from error
    except FormatError as error:  # ours to mend, not the client's mistake
        msg = f"pack {path.stem} is damaged: {error}"
        raise PackCorruptedError(msg) from error


def _raw_size(store: Store, id_: bytes, kind: Kind) -> int:
    copies = local_copies(store, id_, kind)
    if not copies:
        msg = f"{kind.name.lower()} {id_.hex()[:12]} is not here"
        raise NotFoundError(msg)
    return copies[0].entry.raw_size


def _store_plaintext(store: Store, id_: bytes, kind: Kind, body: bytes) -> None:
    if content_id(kind, body) != id_:
        msg = f"the body does not hash to {id_.hex()[:12]}"
        raise MalformedError(msg)
    if kind is Kind.MANIFEST:
        Manifest.from_bytes(body)
    if not local_copies(store, id_, kind):
        with store.batch("receive") as batch:
            batch.put(kind, body, id_=id_)
