"""How much one client and all of them together may ask of a server, and the counts that this needs."""

from __future__ import annotations

import ipaddress
import math
from collections import Counter, OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from aiohttp import web

_BURST_S: Final = 10.0  # a client that was quiet may ask as much at once as its rate allows in so many seconds
_MAX_CLIENTS: Final = 10_000  # whose rates are remembered; the one that was quiet for longest is forgotten first


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one server; 0 stands for none.

    A hundred readers behind one address, with 32 connections each, are within the defaults.

    Attributes:
        connections: open at the same time.
        connections_per_address: the same from one address; an IPv6 network of 64 bits counts as one.
        rate: requests per second of one token, or of one address without a token; ten seconds' worth may come at once.
        speed: bytes per second that one address may read.
        uploads: packs, chunks and manifests that are received at the same time; and as many questions for ids.
        head_s: seconds for the handshake, and for the head of a request from its first byte.
        slow_s: seconds over which `min_speed` is measured.
        min_speed: bytes per second that a client sends of a body, or takes of an answer; slower ones are cut off.
    """

    connections: int = 8192
    connections_per_address: int = 4096
    rate: float = 1000.0
    speed: int = 0
    uploads: int = 64
    head_s: float = 20.0
    slow_s: float = 30.0
    min_speed: int = 4096


class Gate:
    """Counts open connections, in all and by address."""

    def __init__(self, limits: Limits) -> None:
        self._all = limits.connections or math.inf
        self._each = limits.connections_per_address or math.inf
        self._by_address: Counter[str] = Counter()
        self.count = 0

    def enter(self, address: str) -> str | None:
        """Count a connection from an address; when there are too many, says of what and counts nothing."""
        if self.count >= self._all:
            return "connections"
        if self._by_address[address] >= self._each:
            return "connections_per_address"
        self.count += 1
        self._by_address[address] += 1
        return None

    def leave(self, address: str) -> None:
        """A connection that was counted is gone."""
        self.count -= 1
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def of(self, address: str) -> int:
        """How many connections an address has now."""
        return self._by_address[address]


class Rates:
    """A token bucket for each client.

    Args:
        rate: requests per second; 0 for as many as they like.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._full = max(1.0, rate * _BURST_S)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float) -> float:
        """Count a request.

        Args:
            client: who asks.
            now: seconds of a clock that never goes back.

        Returns:
            Seconds until the client may ask again; 0 when it may now.
        """
        if not self._rate:
            return 0.0
        left, then = self._buckets.pop(client, (self._full, now))
        left = min(self._full, left + (now - then) * self._rate)
        allowed = left >= 1
        self._buckets[client] = left - 1 if allowed else left, now
        if len(self._buckets) > _MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self._rate


class Slots:
    """Places for work of which there may be only so much at once.

    Args:
        places: how many; 0 for as many as come.
        what: the work is, for messages and counts.
        refused: counts those who found none.
    """

    def __init__(self, places: int, what: str, refused: Counter[str]) -> None:
        self._places = places or math.inf
        self._what = what
        self._refused = refused
        self.taken = 0

    @contextmanager
    def hold(self) -> Iterator[None]:
        """A place for the block.

        Raises:
            web.HTTPServiceUnavailable: all are taken.
        """
        if self.taken >= self._places:
            self._refused[self._what] += 1
            raise web.HTTPServiceUnavailable(text=f"{self.taken} {self._what} are in progress already; try again")
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


def network(address: str) -> str:
    """Whom an address stands for: itself, or its network where everybody has as many addresses as they like."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))
    return str(parsed)
