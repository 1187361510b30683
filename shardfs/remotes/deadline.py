"""A limit on how long the current thread waits for a remote, whatever is called in between.

`with limit(30):` around any remote call makes each wait inside it (for a connection, for an answer, for a retry) end
when 30 seconds have passed. A body that is arriving at a sound speed is not cut off by it: it has a speed limit
of its own, and a slow link must be able to read at all.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_local = threading.local()


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Bound the waits of this thread inside the block; the nearest of nested limits counts."""
    before = getattr(_local, "at", math.inf)
    _local.at = min(before, time.monotonic() + seconds)
    try:
        yield
    finally:
        _local.at = before


def remaining() -> float:
    """Seconds left in this thread's limit, at least 0; infinite without one."""
    return max(0.0, getattr(_local, "at", math.inf) - time.monotonic())


@contextmanager
def extended(seconds: float) -> Iterator[None]:
    """Have this thread's limit end so much later inside the block: for time that no remote took."""
    before = getattr(_local, "at", math.inf)
    _local.at = before + seconds
    try:
        yield
    finally:
        _local.at = before
