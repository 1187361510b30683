"""What goes on in a server: counts of requests, what is in progress, and whether it is about to end."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from aiohttp import web

from shardfs.server.failures import Handler
from shardfs.server.limits import Limits, Rates, Slots, network

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
CLIENT_LEFT: Final = 499  # counted, never sent: the client went away before it had its answer
ENDPOINT: Final = "endpoint"  # where a request says which endpoint it asks, for the counts
WHO: Final = "who"  # whose token it came with, if any
ADDRESS: Final = "address"  # and where it came from, which a proxy may have said


class Answered(NamedTuple):
    """A request that is over.

    Attributes:
        request: what was asked.
        status: what was answered; `CLIENT_LEFT` when nobody was there any more.
        sent: bytes of the answer's body, as far as it says.
        seconds: from the head of the request to the last byte of the answer that the kernel took.
    """

    request: web.Request
    status: int
    sent: int
    seconds: float


@dataclass
class Latency:
    """A histogram of seconds.

    Attributes:
        counts: how many were within each of `BUCKETS_S` and not within the one before, then those above all.
        total_s: their sum.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds


class Traffic:
    """Counts of one server. Belongs to its event loop.

    Attributes:
        rates: how often each client may ask.
        uploads: places for what is received.
        questions: places for lists of ids, which whoever may only read can send: not those of uploads.
        in_progress: requests that are being answered now.
        answered: how many requests were, by endpoint, method and status.
        latency: how long that took, by endpoint.
        refused: how many connections and requests were turned away, by the limit that they met.
        cut_off: how many connections were ended because the client was too slow, by what it was slow with.
        stopping: whether the server takes no more requests.
        observe: is told of every request that is over.
        metrics: makes the page for Prometheus; the process that serves knows more than the application.
    """

    def __init__(self, limits: Limits) -> None:
        self.rates = Rates(limits.rate)
        self.refused: Counter[str] = Counter()
        self.uploads = Slots(limits.uploads, "uploads", self.refused)
        self.questions = Slots(limits.uploads, "questions", self.refused)
        self.in_progress = 0
        self.answered: Counter[tuple[str, str, int]] = Counter()
        self.latency: dict[str, Latency] = {}
        self.cut_off: Counter[str] = Counter()
        self.stopping = False
        self.observe: Callable[[Answered], None] = lambda _: None
        self.metrics: Callable[[], str] = str
        self._none = asyncio.Event()
        self._none.set()

    def begin(self) -> None:
        """A request came."""
        self.in_progress += 1
        self._none.clear()

    def end(self, answered: Answered) -> None:
        """It is over."""
        self.in_progress -= 1
        if not self.in_progress:
            self._none.set()
        endpoint = answered.request.get(ENDPOINT, "other")
        self.answered[endpoint, _method(answered.request), answered.status] += 1
        self.latency.setdefault(endpoint, Latency()).add(answered.seconds)
        self.observe(answered)

    def admit(self, request: web.Request) -> None:
        """Count a request against the rate of its token or address.

        Raises:
            web.HTTPTooManyRequests: it comes too soon.
        """
        client = request.get(WHO) or network(request[ADDRESS])
        seconds = self.rates.wait(client, time.monotonic())
        if seconds:
            self.refused["rate"] += 1
            headers = {"Retry-After": str(int(seconds) + 1)}
            raise web.HTTPTooManyRequests(text="too many requests; try again later", headers=headers)

    async def none_in_progress(self, timeout_s: float) -> None:
        """Wait until no request is being answered, but not longer than `timeout_s`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._none.wait(), timeout_s)


TRAFFIC: Final = web.AppKey("traffic", Traffic)

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "DELETE"})


def _method(request: web.Request) -> str:
    """As it is in the counts, which a client must not be able to make longer and longer."""
    return request.method if request.method in _METHODS else "other"


class _Sent(web.StreamResponse):
    """Stands for an answer that is sent already: aiohttp sends what it is given, and some answers only once."""

    def __init__(self, answer: web.StreamResponse) -> None:
        super().__init__(status=answer.status)
        self._answer = answer

    @property
    def keep_alive(self) -> bool | None:
        """Whether another request may follow."""
        return self._answer.keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        """Do nothing."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing."""


@web.middleware
async def measure(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count a request until the last byte of its answer has been sent, not only until it is clear what the answer is.

    Once aiohttp's own shutdown has begun it throws away what still arrives of a body and cuts answers short; so that
    begins only when nothing is in progress any more, or too much time has passed.
    """
    traffic = request.app[TRAFFIC]
    began, status, sent = time.monotonic(), CLIENT_LEFT, 0
    traffic.begin()
    try:
        response = await handler(request)
        try:
            await response.prepare(request)
            await response.write_eof()
            status, sent = response.status, response.content_length or 0
        except ConnectionError:
            pass
        except RuntimeError:  # so says asyncio when the end comes just before it sends a file
            if request.transport is not None and not request.transport.is_closing():
                raise
        return _Sent(response)
    finally:
        traffic.end(Answered(request, status, sent, time.monotonic() - began))
