"""The application and its process: `make_app` for tests and other servers, `run` for `shardfs serve`."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from shardfs import __version__
from shardfs.errors import StoreError
from shardfs.server.access import Access
from shardfs.server.failures import Handler, answer_failures
from shardfs.server.handlers import Handlers
from shardfs.server.quota import Quotas
from shardfs.server.recording import begin, recorder
from shardfs.server.repositories import Repositories
from shardfs.server.routes import parse_path
from shardfs.server.tokens import Permission

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8750
_THREADS: Final = 16
_SHUTDOWN_S: Final = 5.0  # how long requests in progress may go on after SIGTERM
_CANCEL_S: Final = 2.0  # and answers that are being sent, and handlers that must be cancelled
_KEEPALIVE_S: Final = 75.0


def make_app(
    root: Path, *, read_only: bool = False, create: bool = True, access: Access | None = None
) -> web.Application:
    """An aiohttp application that serves the repositories below `root`.

    Args:
        root: directory of all repositories; it must exist.
        read_only: refuse everything that changes something.
        create: make a repository when something is put into it.
        access: who may do what; by default only those with a token.
    """
    rules = access or Access(root)
    repositories = Repositories(root, read_only=read_only, create=create)
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="shardfs-serve")
    handlers = Handlers(repositories, threads, rules, Quotas(rules.quota))

    async def dispatch(request: web.Request) -> web.StreamResponse:
        raw_path = request.rel_url.raw_path
        if raw_path == "/healthz" and request.method in ("GET", "HEAD"):
            return web.json_response({"status": "ok", "version": __version__})
        target = parse_path(raw_path)
        if target is None:
            raise web.HTTPNotFound(text="no such endpoint")
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise web.HTTPUnsupportedMediaType(text="send bodies without content coding")
        handler = handlers.find(request.method, target)
        if handler is None:
            raise web.HTTPMethodNotAllowed(request.method, handlers.methods(target), text="method not allowed here")
        rules.check(request, target)
        begin(request, target)
        return await handler(request, target)

    async def stop(_app: web.Application) -> AsyncIterator[None]:
        yield
        threads.shutdown(wait=True, cancel_futures=True)
        repositories.close()

    app = web.Application(middlewares=[_count, recorder(rules.audit), answer_failures, _refuse_browsers])
    app[_IN_PROGRESS] = InProgress()
    app.cleanup_ctx.append(stop)
    app.router.add_route("*", "/{path:.*}", dispatch)
    return app


class InProgress:
    """How many requests are being answered.

    Once aiohttp's own shutdown has begun it throws away what still arrives of a body; so that begins only when nothing
    is in progress any more, or too much time has passed.
    """

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def end(self, timeout_s: float) -> None:
        """Wait until there are none, but not longer than `timeout_s`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none.wait(), timeout_s)


_IN_PROGRESS: Final = web.AppKey("in_progress", InProgress)


@web.middleware
async def _count(request: web.Request, handler: Handler) -> web.StreamResponse:
    with request.app[_IN_PROGRESS]:
        return await handler(request)


@web.middleware
async def _refuse_browsers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A web page must not change a repository through the browser of somebody who can reach this server."""
    from_page = "Origin" in request.headers or "Sec-Fetch-Site" in request.headers
    if from_page and request.method not in ("GET", "HEAD"):
        raise web.HTTPForbidden(text="changes from web pages are refused")
    return await handler(request)


def run(  # noqa: PLR0913 - the options of the command, all with defaults
    root: Path,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    read_only: bool = False,
    create: bool = True,
    access: Access | None = None,
    announce: Callable[[str], None] = print,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> None:
    """Serve until SIGTERM or SIGINT; then requests in progress get a few seconds to end.

    Args:
        root: directory of all repositories; made when missing.
        host: address to listen on; anything but loopback draws a warning when everybody may change something.
        port: 0 takes a free one.
        read_only: refuse everything that changes something.
        create: make a repository when something is put into it.
        access: who may do what; by default only those with a token.
        announce: gets one line with the URL once the server listens.
        warn: gets lines that the user should see.

    Raises:
        StoreError: the root cannot be used, or the address cannot be listened on.
        MalformedError: the file of tokens or of rules is damaged.
    """
    try:
        if not read_only:
            root.mkdir(parents=True, exist_ok=True)
        os.scandir(root).close()
    except OSError as error:
        msg = f"cannot serve {root}: {error.strerror}"
        raise StoreError(msg) from error
    rules = access or Access(root)

    def listens(line: str) -> None:
        announce(line)
        if rules.is_closed():
            command = f"shardfs token create --root {root} --name NAME --repository all"
            warn(f"nobody can get in yet; `{command}` makes a token")

    if rules.anonymous > Permission.READ and not read_only and not _is_loopback(host):
        warn(f"warning: {host} can be reached from other machines, and everybody there may change everything")
    app = make_app(root, read_only=read_only, create=create, access=rules)
    asyncio.run(_serve(app, root, host, port, listens))


async def _serve(app: web.Application, root: Path, host: str, port: int, announce: Callable[[str], None]) -> None:
    runner = web.AppRunner(
        app,
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=_KEEPALIVE_S,
        logger=_http_logger(),
        shutdown_timeout=_CANCEL_S,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        try:
            await site.start()
        except (OSError, OverflowError) as error:
            msg = f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}"
            raise StoreError(msg) from error
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopped.set)
        real_port = runner.addresses[0][1]
        shown = f"[{host}]" if ":" in host else host
        announce(f"Serving {root} at http://{shown}:{real_port}/")
        sys.stdout.flush()
        await stopped.wait()
        await site.stop()
        await app[_IN_PROGRESS].end(_SHUTDOWN_S)
    finally:
        await runner.cleanup()


def _http_logger() -> logging.Logger:
    """The log of aiohttp without a traceback for each client that does not speak HTTP or hangs up."""
    logger = logging.getLogger(f"{__name__}.http")
    logger.addFilter(_is_own_fault)
    return logger


def _is_own_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError | ConnectionError)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
