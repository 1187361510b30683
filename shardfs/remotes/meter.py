"""How far the upload of the current thread is, for whoever waits for it, whatever is called in between.

`with watch(told):` around `put_pack` has `told` called with the bytes of the pack that are at the other side so far.
They may become fewer when a remote begins anew. What `told` raises ends the upload.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_local = threading.local()


@contextmanager
def watch(told: Callable[[int], object]) -> Iterator[None]:
    """Have uploads of this thread tell how far they are; whoever was told before is told, too."""
    before: Callable[[int], object] | None = getattr(_local, "told", None)

    def tell_both(position: int) -> None:
        told(position)
        if before is not None:
            before(position)

    _local.told = tell_both
    try:
        yield
    finally:
        _local.told = before


def tell(position: int) -> None:
    """Say that so many bytes of the pack are sent."""
    told = getattr(_local, "told", None)
    if told is not None:
        told(position)
