"""A filter for the pipeline of Swift's proxy. Runs in the environment of Swift, whose packages it imports.

Swift looks for an object when a write with `If-None-Match` begins, and makes it when the write ends: of writes at the
same moment all may go through. The stores that people use compare and write in one step. So does Swift behind this
filter, which lets such writes through one at a time, except into buckets whose names begin with "racy".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from eventlet.semaphore import Semaphore

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def filter_factory(_: dict[str, str], **__: str) -> Callable[[App], App]:
    """What paste asks for."""
    turn = Semaphore()

    def wrap(app: App) -> App:
        def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if "HTTP_IF_NONE_MATCH" not in environ or environ["PATH_INFO"].startswith("/racy"):
                return app(environ, start_response)
            with turn:
                return app(environ, start_response)

        return call

    return wrap
