"""How often something went wrong lately, by who did it; in bounded memory."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

_MAX_KEYS: Final = 4096


class Attempts:
    """Counts; forgets at a steady rate. For one thread.

    Args:
        limit: how many are too many at once.
        window_s: seconds in which `limit` of them are forgotten.
        clock: seconds, rising.
    """

    def __init__(self, limit: int, window_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._rate = limit / window_s
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # how many at which time

    def wait_s(self, key: str) -> float:
        """Seconds until one more is not too many; 0: now."""
        return max(0.0, (self._now(key) + 1 - self._limit) / self._rate)

    def add(self, key: str) -> None:
        """Count one more."""
        self._counts[key] = self._now(key) + 1, self._clock()
        self._counts.move_to_end(key)
        if len(self._counts) > _MAX_KEYS:
            self._counts.popitem(last=False)

    def _now(self, key: str) -> float:
        count, since = self._counts.get(key, (0.0, 0.0))
        return max(0.0, count - (self._clock() - since) * self._rate)
