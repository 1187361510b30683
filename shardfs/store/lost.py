"""Bases without a good copy, as one read finds them out."""

from __future__ import annotations

from typing import Final

from shardfs.errors import ShardfsError

_MAX_TIED: Final = 1000  # searches of one read that fail because of what is above them


class Lost:
    """Why bases cannot be read: each would else be tried again by each copy of what is above.

    One that only failed below certain chunks, in a circle or too deep, may be read below others. But not for ever:
    packs can be made so that there are 2**16 ways to try.
    """

    def __init__(self) -> None:
        self._errors: dict[bytes, ShardfsError] = {}
        self._tied = 0

    def get(self, id_: bytes) -> ShardfsError | None:
        """Why a base cannot be read; None when that is not known."""
        return self._errors.get(id_)

    def add(self, id_: bytes, error: ShardfsError, *, is_tied: bool) -> None:
        """Take note of a base that could not be read; `is_tied`: below these chunks, perhaps not below others."""
        self._tied += is_tied
        if not is_tied or self._tied > _MAX_TIED:
            self._errors[id_] = error
