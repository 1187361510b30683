"""Copies of one payload that came damaged, asked for alone: whom, whether past caches, and for how long."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from shardfs.errors import ShardfsError
from shardfs.store.index import Location


class Attempt(NamedTuple):
    """One copy to ask for.

    Attributes:
        location: the copy.
        is_fresh: past caches on the way to its remote.
        others: remotes that are asked next, rather than waiting for this one; empty: it may take its time.
    """

    location: Location
    is_fresh: bool
    others: tuple[str, ...]


class Attempts:
    """Each remote is asked past caches once it gave wrong bytes, and gets its time once all others were asked.

    Args:
        copies: the same payload at some remotes.
        place: the remote that gave wrong bytes already; it is asked first.
    """

    def __init__(self, copies: Iterable[Location], place: str) -> None:
        ordered = sorted(copies, key=lambda location: location.place != place)
        self._left = deque((location, location.place == place) for location in ordered)
        self._late: set[str] = set()

    def __len__(self) -> int:
        """How many are left, but for those that come up again."""
        return len(self._left)

    def take(self) -> Attempt:
        """The next one; there is one."""
        location, is_fresh = self._left.popleft()
        others = () if location.place in self._late else tuple(other.place for other, _ in self._left)
        return Attempt(location, is_fresh, others)

    def damaged(self, attempt: Attempt) -> bool:
        """The bytes were wrong; whether this remote is given up: no cache on the way can have made them so."""
        if not attempt.is_fresh:
            self._left.append((attempt.location, True))
        return attempt.is_fresh

    def failed(self, attempt: Attempt, error: ShardfsError) -> None:
        """It did not answer, or not in the moment that it had before the others are asked."""
        if attempt.others and error.retryable:
            self._late.add(attempt.location.place)
            self._left.append((attempt.location, attempt.is_fresh))
