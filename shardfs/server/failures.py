"""From an error to an answer, in one table; nothing that a client sends makes a traceback."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from shardfs.errors import (
    ConflictError,
    FormatError,
    LockedError,
    NotFoundError,
    OutOfSpaceError,
    ReadOnlyError,
    RefChangedError,
    ShardfsError,
    UsageError,
)
from shardfs.formats import wire
from shardfs.server.access import challenge

_log = logging.getLogger(__name__)

_RETRY_AFTER_S: Final = 2
_STATUSES: Final[tuple[tuple[type[ShardfsError], int], ...]] = (
    (RefChangedError, 412),
    (ConflictError, 409),
    (FormatError, 400),
    (UsageError, 400),
    (NotFoundError, 404),
    (ReadOnlyError, 403),
    (LockedError, 503),
    (OutOfSpaceError, 507),
)

_KEPT: Final = ("Allow", "Retry-After", "WWW-Authenticate")  # headers of an HTTPException that its answer has too

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def failure(status: int, message: str) -> web.Response:
    """An answer that says in one line what went wrong."""
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status == 503 else challenge(status)
    body = wire.error_to_bytes(message)
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


@web.middleware
async def answer_failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn errors of a handler into answers."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = failure(error.status, error.text or error.reason)
        answer.headers.update({name: error.headers[name] for name in _KEPT if name in error.headers})
        return answer
    except RefChangedError as error:
        body = wire.current_to_bytes(str(error), error.current)
        return web.Response(status=412, body=body, content_type="application/json")
    except ShardfsError as error:
        return _known(request, error)
    except (ConnectionError, TimeoutError):
        raise
    except Exception:  # noqa: BLE001 - the edge: the log gets the traceback, the client does not
        _log.exception("%s %s failed", request.method, request.rel_url.raw_path)
        return failure(500, "internal error; the server's log has the cause")


def _known(request: web.Request, error: ShardfsError) -> web.Response:
    status = next((code for kind, code in _STATUSES if isinstance(error, kind)), 500)
    if status >= 500:
        _log.warning("%s %s: %s", request.method, request.rel_url.raw_path, error)
    return failure(status, str(error))
