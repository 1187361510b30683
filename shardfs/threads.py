"""Threads for work in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable


def start(work: Callable[[], object], name: str) -> threading.Thread | None:
    """A thread that runs `work`; a program that ends does not wait for it.

    Returns:
        None when the system allows no more threads.
    """
    thread = threading.Thread(target=work, name=f"shardfs-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread
