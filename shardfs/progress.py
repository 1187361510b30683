"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int | None, str], None]
"""Called with bytes done, bytes in all (None when unknown) and what is being worked on; often, one call at a time."""


def no_progress(done: int, total: int | None, what: str) -> None:
    """For callers that show nothing."""
    del done, total, what
