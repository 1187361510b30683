"""All counters of one mount: what `.shardfs/stats.json` and the metrics show."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from shardfs.errors import ShardfsError
from shardfs.mount import process
from shardfs.mount.source import Source
from shardfs.mount.traffic import Traffic


class Stats:
    """Counters of a mount, of its process and of its repository.

    Attributes:
        started_ns: when the mount began, nanoseconds since 1970.
        traffic: what programs ask.
    """

    def __init__(self, source: Source, counters: Mapping[str, Callable[[], Any]]) -> None:
        """Args: counters: of what serves the mount, as in `Vfs`."""
        self._source = source
        self._counters = counters
        self._since = time.monotonic()
        self.started_ns = time.time_ns()
        self.traffic = Traffic()

    def snapshot(self) -> dict[str, Any]:
        """Counters by part, each a named tuple or a mapping, and `uptime_s`. Takes well under a millisecond.

        The parts of the repository are left out while it cannot be asked.
        """
        found: dict[str, Any] = {
            "uptime_s": round(time.monotonic() - self._since, 3),
            "mount": self.traffic.counts(),
            "process": process.usage(),
            **{name: count() for name, count in self._counters.items()},
        }
        with suppress(ShardfsError, OSError):
            found |= self._source.stats_snapshot()
        return found
