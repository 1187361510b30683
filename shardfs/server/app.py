"""The application and its process: `make_app` for tests and other servers, `run` for `shardfs serve`."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import HttpVersion11, web

from shardfs import __version__
from shardfs.errors import StoreError
from shardfs.exposition import CONTENT_TYPE
from shardfs.server.access import Access, caller_of, keep_private
from shardfs.server.endpoints import Endpoints
from shardfs.server.failures import Handler, answer_failures
from shardfs.server.folder import make_folder
from shardfs.server.handlers import Handlers
from shardfs.server.limits import Limits
from shardfs.server.process import REPOSITORIES, Edge, is_loopback, serve
from shardfs.server.quota import Quotas
from shardfs.server.receiving import CONTINUE
from shardfs.server.recording import begin, recorder
from shardfs.server.repositories import Repositories
from shardfs.server.routes import Target, parse_path
from shardfs.server.slow import mark_request
from shardfs.server.tokens import Permission
from shardfs.server.traffic import ADDRESS, ENDPOINT, TRAFFIC, WHO, Traffic, measure

Page = Callable[[web.Request], web.Response]

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8750
_THREADS: Final = 16
_UPLOADS: Final = frozenset({("PUT", "pack"), ("PUT", "block"), ("PUT", "manifest")})


def make_app(
    root: Path,
    *,
    read_only: bool = False,
    create: bool = True,
    access: Access | None = None,
    limits: Limits = Limits(),  # noqa: B008 - immutable
) -> web.Application:
    """An aiohttp application that serves the repositories below `root`.

    Args:
        root: directory of all repositories; it must exist.
        read_only: refuse everything that changes something.
        create: make a repository when something is put into it.
        access: who may do what; by default only those with a token.
        limits: of clients; those of connections are kept by the process that serves.
    """
    rules = access or Access(root)
    threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="shardfs-serve")
    repositories = Repositories(root, threads, read_only=read_only, create=create)
    handlers = Handlers(repositories, threads, rules, Quotas(rules.quota))
    app = assemble(handlers, threads, rules, limits, repositories.close)
    app[REPOSITORIES] = repositories
    return app


def assemble(
    handlers: Endpoints, threads: ThreadPoolExecutor, rules: Access, limits: Limits, close: Callable[[], None]
) -> web.Application:
    """An application around some endpoints.

    Args:
        handlers: the endpoints.
        threads: on which they do what blocks; ended with the application.
        rules: who may do what.
        limits: of clients.
        close: called when the threads have ended.
    """
    traffic = Traffic(limits)
    pages: dict[str, Page] = {
        "/healthz": partial(_health, traffic),
        "/metrics": partial(_metrics, traffic, rules),
        "/openapi.yaml": _openapi,
    }

    async def dispatch(request: web.Request) -> web.StreamResponse:
        raw_path = request.rel_url.raw_path
        request[ADDRESS] = rules.address(request)
        if raw_path in pages:
            return _page(request, pages[raw_path])
        if traffic.stopping:
            raise web.HTTPServiceUnavailable(text="the server is about to end; try again")
        target = parse_path(raw_path)
        if target is None:
            raise web.HTTPNotFound(text="no such endpoint")
        request[ENDPOINT] = target.endpoint
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise web.HTTPUnsupportedMediaType(text="send bodies without content coding")
        if request.headers.get("Expect", CONTINUE).lower() != CONTINUE and request.version >= HttpVersion11:
            raise web.HTTPExpectationFailed(text="nothing but 100-continue can be expected here")
        handler = handlers.find(request.method, target)
        if handler is None:
            raise web.HTTPMethodNotAllowed(request.method, handlers.methods(target), text="method not allowed here")
        _let_in(request, target, rules, traffic)
        begin(request, target)
        with _place(traffic, request.method, target.endpoint):
            return keep_private(request, await handler(request, target))

    async def stop(_app: web.Application) -> AsyncIterator[None]:
        yield
        threads.shutdown(wait=True, cancel_futures=True)
        close()

    middlewares = [mark_request, measure, recorder(rules.audit), answer_failures, _refuse_browsers]
    app = web.Application(middlewares=middlewares)
    app[TRAFFIC] = traffic
    app.cleanup_ctx.append(stop)
    app.on_response_prepare.append(_finish_head)
    app.router.add_route("*", "/{path:.*}", dispatch, expect_handler=_not_yet)
    return app


def _place(traffic: Traffic, method: str, endpoint: str) -> AbstractContextManager[None]:
    """Where a request that has a body of some size is held: bodies take memory and disk."""
    if (method, endpoint) in _UPLOADS:
        return traffic.uploads.hold()
    return traffic.questions.hold() if endpoint == "has" else nullcontext()


def _let_in(request: web.Request, target: Target, rules: Access, traffic: Traffic) -> None:
    """Refuse a request that may not be, or not now; those whom nobody knows are counted by their address."""
    try:
        rules.check(request, target)
        token = caller_of(request).token
        request[WHO] = token.name if token else None
    finally:
        traffic.admit(request)


def _page(request: web.Request, page: Page) -> web.Response:
    """What is about the server, not about a repository."""
    request[ENDPOINT] = request.rel_url.raw_path[1:]
    if request.method not in ("GET", "HEAD"):
        raise web.HTTPMethodNotAllowed(request.method, ("GET", "HEAD"), text="method not allowed here")
    return page(request)


def _health(traffic: Traffic, _request: web.Request) -> web.Response:
    status = {"status": "stopping" if traffic.stopping else "ok", "version": __version__}
    return web.json_response(status, status=503 if traffic.stopping else 200)


def _metrics(traffic: Traffic, rules: Access, request: web.Request) -> web.Response:
    rules.check_server(request)
    return web.Response(body=traffic.metrics().encode(), headers={"Content-Type": CONTENT_TYPE})


def _openapi(_request: web.Request) -> web.Response:
    return web.Response(body=Path(__file__).with_name("openapi.yaml").read_bytes(), content_type="application/yaml")


async def _finish_head(_request: web.Request, response: web.StreamResponse) -> None:
    """Say what this is, not which versions of what, and that no cache keeps a failure: it is over when it is over."""
    response.headers["Server"] = "shardfs"
    if response.status >= 400:
        response.headers["Cache-Control"] = "no-store"


async def _not_yet(_request: web.Request) -> None:
    """Who asks before sending a body is told when it is clear that the body is wanted."""


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
    edge: Edge = Edge(),  # noqa: B008 - immutable
    announce: Callable[[str], None] = print,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> None:
    """Serve until SIGTERM or SIGINT; see `process.serve`.

    Args:
        root: directory of all repositories; made when missing.
        host: address to listen on; anything but loopback draws a warning when everybody may change something.
        port: 0 takes a free one.
        read_only: refuse everything that changes something.
        create: make a repository when something is put into it.
        access: who may do what; by default only those with a token.
        edge: TLS, limits, logs.
        announce: gets one line with the URL once the server listens.
        warn: gets lines that the user should see.

    Raises:
        StoreError: the root cannot be used, the address cannot be listened on, or a log cannot be written.
        UsageError: the certificate is no good.
        MalformedError: the file of tokens or of rules is damaged.
    """
    if not read_only:
        make_folder(root, "cannot serve")
    try:
        os.scandir(root).close()
    except OSError as error:
        msg = f"cannot serve {root}: {error.strerror}"
        raise StoreError(msg) from error
    rules = access or Access(root)

    if rules.anonymous > Permission.READ and not read_only and not is_loopback(host):
        warn(f"warning: {host} can be reached from other machines, and everybody there may change everything")
    app = make_app(root, read_only=read_only, create=create, access=rules, limits=edge.limits)
    serve(app, str(root), (host, port), edge, announce=and_how_to_get_in(announce, rules, root, warn), warn=warn)


def and_how_to_get_in(
    announce: Callable[[str], None], rules: Access, folder: Path, warn: Callable[[str], None]
) -> Callable[[str], None]:
    """`announce`, and after it a warning when nobody can get in.

    Args:
        announce: gets the line that says that the server listens.
        rules: who may do what.
        folder: where tokens are made.
        warn: gets the warning.
    """

    def both(line: str) -> None:
        announce(line)
        if rules.is_closed():
            command = f"shardfs token create --root {shlex.quote(str(folder))} --name NAME --repository all"
            warn(f"nobody can get in yet; `{command}` makes a token, or use --anonymous read")

    return both
