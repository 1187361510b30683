"""A server as a process: what it listens on, whom it cuts off, what it tells, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import resource
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from shardfs.exposition import Metric
from shardfs.server.access_log import AccessLog
from shardfs.server.limits import Gate, Limits
from shardfs.server.listener import Listener, listen
from shardfs.server.metrics import Metrics
from shardfs.server.repositories import Repositories
from shardfs.server.slow import KEEPALIVE_S, Connection, Watch
from shardfs.server.tls import Certificate
from shardfs.server.traffic import TRAFFIC

_CANCEL_S: Final = 2.0  # handlers that must be cancelled may take so long to end
_OTHER_FILES: Final = 512  # descriptors beside those of connections: stores, packs, uploads
REPOSITORIES: Final = web.AppKey("repositories", Repositories)
MORE_METRICS: Final[web.AppKey[Callable[[], Iterable[Metric]]]] = web.AppKey("more_metrics")


@dataclass(frozen=True, slots=True)
class Edge:
    """How a server meets the network.

    Attributes:
        certificate: PEM files of a certificate and its key, for TLS; None for plain HTTP.
        limits: of clients.
        grace_s: seconds that requests in progress get to end when the server is told to.
        access_log: file for a line about each request, "-" for the standard output; None for no such log.
    """

    certificate: tuple[Path, Path] | None = None
    limits: Limits = field(default_factory=Limits)
    grace_s: float = 10.0
    access_log: str | None = None


def serve(
    app: web.Application,
    what: str,
    where: tuple[str, int],
    edge: Edge,
    *,
    announce: Callable[[str], None] = print,
    warn: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
) -> None:
    """Serve until SIGTERM or SIGINT; then requests in progress may end. A second signal does not wait for them.

    SIGHUP reads the certificate again and goes on in a new access log.

    Args:
        app: made for the same limits; has `TRAFFIC` and the middlewares `mark_request` and `measure`.
        what: is served, for the line that is announced.
        where: host and port; port 0 takes a free one.
        edge: the rest.
        announce: gets one line with the URL once the server listens.
        warn: gets lines that the user should see.

    Raises:
        UsageError: the certificate is no good.
        StoreError: an address cannot be listened on, or the access log cannot be written.
    """
    if edge.certificate is None and not is_loopback(where[0]):
        warn(f"warning: {where[0]} can be reached from other machines, and nothing is encrypted (--tls-cert)")
    _allow_descriptors(edge.limits, warn)
    asyncio.run(_Process(app, edge).run(what, where, announce))


class _Process:
    """The parts of one server while it runs."""

    def __init__(self, app: web.Application, edge: Edge) -> None:
        self._app = app
        self._edge = edge
        self._traffic = app[TRAFFIC]
        self._gate = Gate(edge.limits)
        self._watch = Watch(edge.limits, self._gate, self._traffic.cut_off)
        self._certificate = Certificate(*edge.certificate) if edge.certificate else None
        more = app.get(MORE_METRICS, tuple)
        self._traffic.metrics = Metrics(self._traffic, self._watch, self._gate, app.get(REPOSITORIES), more).page

    async def run(self, what: str, where: tuple[str, int], announce: Callable[[str], None]) -> None:
        async with AsyncExitStack() as stack:
            told = _signals()
            if self._edge.access_log is not None:
                log = AccessLog(None if self._edge.access_log == "-" else Path(self._edge.access_log))
                stack.callback(log.close)
                self._traffic.observe = log.write
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, partial(self._hang_up, log))
            else:
                asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._hang_up)
            listener, address = await self._listener(stack, where)
            await stack.enter_async_context(_background(self._watch.run(self._each_second)))
            scheme = "http" if self._certificate is None else "https"
            shown = f"[{where[0]}]" if ":" in where[0] else where[0]
            announce(f"Serving {what} at {scheme}://{shown}:{address[1]}/")
            sys.stdout.flush()
            await told.get()
            self._traffic.stopping = True
            await listener.close()
            await _first(self._traffic.none_in_progress(self._edge.grace_s), told.get())
            self._watch.cut_all()

    async def _listener(self, stack: AsyncExitStack, where: tuple[str, int]) -> tuple[Listener, tuple[str, int]]:
        runner = web.AppRunner(self._app, shutdown_timeout=_CANCEL_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        sockets = listen(*where)
        address: tuple[str, int] = sockets[0].getsockname()[:2]
        certificate = self._certificate
        tls = (lambda: certificate.context) if certificate else None
        make = partial(self._make, runner, _http_logger())
        head_s = self._edge.limits.head_s
        listener = Listener(sockets, make, self._gate, self._traffic.refused, tls, head_s)
        stack.push_async_callback(listener.close)
        return listener, address

    def _make(self, runner: web.AppRunner, logger: logging.Logger, address: str) -> Connection:
        assert runner.server is not None
        loop = asyncio.get_running_loop()
        options = {"keepalive_timeout": KEEPALIVE_S, "logger": logger, "access_log": None, "auto_decompress": False}
        return Connection(runner.server, address, self._watch, self._gate, loop=loop, **options)

    def _each_second(self) -> None:
        if self._certificate is not None:
            self._certificate.refresh()

    def _hang_up(self, log: AccessLog | None = None) -> None:
        if self._certificate is not None:
            self._certificate.refresh(force=True)
        if log is not None:
            log.reopen()


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _signals() -> asyncio.Queue[int]:
    told: asyncio.Queue[int] = asyncio.Queue()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.put_nowait, number)
    return told


async def _first(*waits: object) -> None:
    """Wait for the first of several things; the others are cancelled."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _background(work: object) -> AsyncIterator[None]:
    """Something that goes on during the block."""
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _allow_descriptors(limits: Limits, warn: Callable[[str], None]) -> None:
    """Each connection takes a descriptor; the usual soft limit, 1024, is for programs that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    needed = limits.connections + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        warn(f"warning: {limits.connections} connections need {needed} descriptors, and there are {soft} (ulimit -n)")


def _http_logger() -> logging.Logger:
    """The log of aiohttp without a traceback for each client that does not speak HTTP or hangs up."""
    logger = logging.getLogger(f"{__name__}.http")
    logger.addFilter(_is_own_fault)
    return logger


def _is_own_fault(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    theirs = (HttpProcessingError, web.RequestPayloadError, web.HTTPException, ConnectionError)
    return not isinstance(error, theirs)
