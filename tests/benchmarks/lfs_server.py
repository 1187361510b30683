"""A server of git-lfs objects: the batch API with basic transfers, files on disk, digests checked on the way in.

python -m tests.benchmarks.lfs_server ADDRESS PORT FOLDER
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from aiohttp import web

_TYPE = "application/vnd.git-lfs+json"
_MAX_BODY = 64 << 20


class Objects:
    """Objects by SHA-256 in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def batch(self, request: web.Request) -> web.Response:
        """Say where objects go or come from; those that are there need not be sent."""
        asked = await request.json()
        upload = asked["operation"] == "upload"
        objects = []
        for wanted in asked["objects"]:
            href = f"{request.scheme}://{request.host}/{wanted['oid']}"
            action = {} if upload and self._path(wanted["oid"]).exists() else {asked["operation"]: {"href": href}}
            objects.append({**wanted, "authenticated": True, "actions": action})
        return web.json_response({"transfer": "basic", "objects": objects}, content_type=_TYPE)

    async def put(self, request: web.Request) -> web.Response:
        """Keep an object once its digest is right."""
        path = self._path(request.match_info["oid"])
        digest = hashlib.sha256()
        unfinished = path.with_suffix(f".{os.urandom(4).hex()}")
        with unfinished.open("xb") as file:
            async for piece in request.content.iter_any():
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != path.name:
            unfinished.unlink()
            raise web.HTTPUnprocessableEntity
        unfinished.rename(path)
        return web.Response()

    async def get(self, request: web.Request) -> web.FileResponse:
        """An object."""
        return web.FileResponse(self._path(request.match_info["oid"]))

    def _path(self, oid: str) -> Path:
        return self._folder / oid


def main() -> None:
    """Serve until SIGTERM."""
    address, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    folder.mkdir(parents=True, exist_ok=True)
    objects = Objects(folder)
    app = web.Application(client_max_size=_MAX_BODY)
    app.router.add_post("/objects/batch", objects.batch)
    app.router.add_put("/{oid:[0-9a-f]{64}}", objects.put)
    app.router.add_get("/{oid:[0-9a-f]{64}}", objects.get)
    web.run_app(app, host=address, port=port, print=None)


if __name__ == "__main__":
    main()
