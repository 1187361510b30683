"""What became of the requests to one remote."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from shardfs.remotes.flow import Flow


@dataclass
class Counters:
    """Of one remote, while it is open; see `RemoteCounts`. Counts may be off by a few: nothing waits for a lock.

    Attributes:
        received, sent: bytes of packs.
    """

    attempts: int = 0
    failures: int = 0
    held_back: int = 0
    hedged: int = 0
    hedges_won: int = 0
    cuts: int = 0
    limit: int = 0
    in_flight: int = 0
    waiting: int = 0
    down: int = 0
    received: Flow = field(default_factory=Flow)
    sent: Flow = field(default_factory=Flow)


class RemoteCounts(NamedTuple):
    """What became of requests, by name of the remote.

    Attributes:
        attempts: requests that were made, repeats included.
        failures: of them those without an answer: refused, broken off, too slow, 5xx.
        held_back: requests that were not made, because the remote had failed or wanted to be left alone.
        hedged: second requests for ranges whose first took long.
        hedges_won: of them those that were answered first.
        cuts: how often fewer requests at once were made because of trouble.
        limit: most requests at once now.
        in_flight: requests for ranges and packs that are on their way now.
        waiting: requests that wait for others to end now.
        down: whether the remote is not asked now, 0 or 1.
    """

    attempts: dict[str, int]
    failures: dict[str, int]
    held_back: dict[str, int]
    hedged: dict[str, int]
    hedges_won: dict[str, int]
    cuts: dict[str, int]
    limit: dict[str, int]
    in_flight: dict[str, int]
    waiting: dict[str, int]
    down: dict[str, int]


def snapshot(found: Iterable[tuple[str, Counters]]) -> RemoteCounts:
    """The counters of remotes by their names."""
    known = dict(found)
    return RemoteCounts(
        **{count: {name: getattr(one, count) for name, one in known.items()} for count in RemoteCounts._fields}
    )
