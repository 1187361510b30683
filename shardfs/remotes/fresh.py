"""Ask a remote for bytes as they are now, because those that came were wrong.

`with demanded():` around a call makes caches between here and the remote ask the remote again, for this thread.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_local = threading.local()


@contextmanager
def demanded() -> Iterator[None]:
    """Inside the block nothing is taken from a cache on the way."""
    before = is_demanded()
    _local.is_demanded = True
    try:
        yield
    finally:
        _local.is_demanded = before


def is_demanded() -> bool:
    """Whether this thread is inside such a block."""
    return getattr(_local, "is_demanded", False)
