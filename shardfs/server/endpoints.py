"""What the endpoints of a server and of a cache have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, ParamSpec, TypeVar

from aiohttp import web

from shardfs.server.routes import Target

IMMUTABLE: Final = "public, max-age=31536000, immutable"  # Cache-Control of what never changes
FRESH: Final = "no-cache"  # and of what may
BINARY: Final = "application/octet-stream"

Answer = Callable[[web.Request, Target], Awaitable[web.StreamResponse]]

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Endpoints:
    """What answers requests.

    Args:
        threads: where blocking work runs.
        table: the handlers by method and endpoint; HEAD is GET without a body.
    """

    def __init__(self, threads: ThreadPoolExecutor, table: dict[tuple[str, str], Answer]) -> None:
        self._threads = threads
        self._table = table

    def find(self, method: str, target: Target) -> Answer | None:
        """The handler for a method on a target; None: there is none."""
        return self._table.get(("GET" if method == "HEAD" else method, target.endpoint))

    def methods(self, target: Target) -> list[str]:
        """Methods that a target allows."""
        allowed = [method for method, endpoint in self._table if endpoint == target.endpoint]
        return sorted([*allowed, "HEAD"] if "GET" in allowed else allowed)

    def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """Run a blocking function on a thread."""
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._threads, partial(function, *args, **kwargs))
