"""What the audit log says of each request that was let in to change something."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web

from shardfs.server.access import caller_of
from shardfs.server.audit import AuditLog
from shardfs.server.failures import Handler
from shardfs.server.routes import Target

ACTIONS: Final = {
    ("PUT", "pack"): "push pack",
    ("PUT", "block"): "push chunk",
    ("PUT", "manifest"): "push manifest",
    ("PUT", "ref"): "move ref",
    ("DELETE", "ref"): "delete ref",
}

_RECORD: Final = "shardfs.record"


def begin(request: web.Request, target: Target) -> None:
    """Remember what is about to be done, if it changes something."""
    action = ACTIONS.get((request.method, target.endpoint))
    if action is not None:
        request[_RECORD] = {
            "action": action,
            **caller_of(request).fields,
            "repository": target.repository,
            "id": target.id.hex() or None,
            "ref": target.ref or None,
            "bytes": None if target.ref else request.content_length,
        }


def note(request: web.Request, **fields: Any) -> None:
    """Add to what is said of this request."""
    request[_RECORD].update(fields)


def recorder(audit: AuditLog) -> Any:
    """A middleware that writes what was begun, with the status that it ended with, before the client is told."""

    @web.middleware
    async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response = await handler(request)
        except BaseException:  # the client or the server is gone, and what was done may be done
            if _RECORD in request:
                audit.write(**request[_RECORD])
            raise
        if _RECORD in request:
            await asyncio.to_thread(audit.write, **request[_RECORD], status=response.status)
        return response

    return record
