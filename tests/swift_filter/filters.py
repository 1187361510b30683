"""Filters for the pipeline of Swift's proxy. They run in the environment of Swift, whose packages they import."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from eventlet.semaphore import Semaphore

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def one_at_a_time(_: dict[str, str], **__: str) -> Callable[[App], App]:
    """Conditional writes go through one by one, except into buckets whose names begin with "racy".

    Swift looks for an object when a write with `If-None-Match` begins, and makes it when the write ends: of writes at
    the same moment all may go through. The stores that people use compare and write in one step.
    """
    turn = Semaphore()

    def wrap(app: App) -> App:
        def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            if "HTTP_IF_NONE_MATCH" not in environ or environ["PATH_INFO"].startswith("/racy"):
                return app(environ, start_response)
            with turn:
                return app(environ, start_response)

        return call

    return wrap


class _Cache:
    """What Swift asks of memcached, for a proxy that is one process."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, key: str, **_: Any) -> Any:
        return self._values.get(key)

    def set(self, key: str, value: Any, **_: Any) -> None:
        self._values[key] = value

    def delete(self, key: str, **_: Any) -> None:
        self._values.pop(key, None)


def cache(_: dict[str, str], **__: str) -> Callable[[App], App]:
    """Tokens and what is known of buckets stay in the memory of the proxy: no daemon is needed for them."""
    kept = _Cache()

    def wrap(app: App) -> App:
        def call(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            environ["swift.cache"] = kept
            return app(environ, start_response)

        return call

    return wrap
