"""Which of several remotes to ask first, as the user ordered them and as they answered lately.

A remote that failed, or that another one overtook, comes after all others for a while. Then one small request that
nobody waits for finds out whether it is back: no reader waits for a remote that is known to be down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

FIRST_PAUSE_S: Final = 1.0  # before a remote that failed is looked at again; a server restarts in about that time
LONGEST_PAUSE_S: Final = 30.0  # each look that fails doubles the pause, up to this
LEAST_PATIENCE_S: Final = 0.5  # for an answer before another remote is asked, too: 3 x a slow round trip of 150 ms
PATIENCE: Final = 3.0  # times the usual duration of such a request
_DEADLINE_SHARE: Final = 4  # no more than this part of the deadline
_WEIGHT: Final = 0.2  # of the last answer in the means
_SMALL: Final = 64 << 10  # bytes; how long so few take says little about how long many take, and the other way round


class _Standing:
    """One remote: how it answered, and until when it is left alone."""

    __slots__ = ("is_down", "large_bytes", "large_s", "pause_s", "small_s", "until")

    def __init__(self) -> None:
        self.is_down = False
        self.until = 0.0  # monotonic time of the next look at it
        self.pause_s = 0.0
        self.small_s = 0.0  # mean duration of small requests
        self.large_s = self.large_bytes = 0.0  # means of large ones


class Standings:
    """Safe to share between threads and by all readers of a repository; holds no lock."""

    def __init__(self, order: Sequence[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        """Nothing is known yet.

        Args:
            order: names of remotes in the order of asking; others come after them.
            clock: seconds; for tests.
        """
        self._clock = clock
        self._standings: dict[str, _Standing] = {}
        self.reorder(order)

    def reorder(self, order: Sequence[str]) -> None:
        """Ask in this order from now on."""
        self._order = {place: turn for turn, place in enumerate(order)}

    def rank(self, place: str) -> tuple[bool, int, str]:
        """What sorts remotes: those that are down last, else by their order."""
        return self.is_down(place), self._order.get(place, len(self._order)), place

    def is_down(self, place: str) -> bool:
        """Whether it failed or was overtaken, and has not answered since."""
        return self._of(place).is_down

    def came(self, place: str, size: int, seconds: float) -> None:
        """It gave `size` bytes after so many seconds. If that was in time, it is up again."""
        standing = self._of(place)
        if size < _SMALL:
            standing.small_s = _mean(standing.small_s, seconds)
        else:
            standing.large_s = _mean(standing.large_s, seconds)
            standing.large_bytes = _mean(standing.large_bytes, size)
        if seconds <= LEAST_PATIENCE_S:
            standing.is_down = False
            if size >= _SMALL:  # one that is slow with much answers quickly when it is asked for little
                standing.pause_s = 0.0

    def is_there(self, place: str) -> None:
        """It answered, though not with what it was asked for."""
        self._of(place).is_down = False

    def failed(self, place: str) -> None:
        """It failed, lied, or another one answered first. What was on its way with that counts once."""
        standing, now = self._of(place), self._clock()
        if standing.is_down and now < standing.until:
            return
        standing.pause_s = min(LONGEST_PAUSE_S, 2 * standing.pause_s or FIRST_PAUSE_S)
        standing.is_down, standing.until = True, now + standing.pause_s

    def is_due(self, place: str) -> bool:
        """Whether it is down and the caller shall look at it; nobody else is told so before the next pause is over."""
        standing, now = self._of(place), self._clock()
        if not standing.is_down or now < standing.until:
            return False
        self.failed(place)
        return True

    def patience_s(self, place: str, others: Iterable[str], size: int, deadline_s: float) -> float:
        """Seconds to wait for `size` bytes of a remote before one of the others is asked, too."""
        known = [usual for other in others if (usual := self._usual_s(other, size))]
        usual_s = min(known, default=self._usual_s(place, size))
        return min(max(LEAST_PATIENCE_S, PATIENCE * usual_s), deadline_s / _DEADLINE_SHARE)

    def _usual_s(self, place: str, size: int) -> float:
        """Seconds that so many bytes usually take; 0 when that is not known."""
        standing = self._of(place)
        if size < _SMALL or not standing.large_bytes:
            return standing.small_s
        return standing.large_s * max(1.0, size / standing.large_bytes)

    def _of(self, place: str) -> _Standing:
        return self._standings.setdefault(place, _Standing())


def _mean(mean: float, last: float) -> float:
    return mean + _WEIGHT * (last - mean) if mean else last
