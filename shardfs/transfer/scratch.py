"""A folder in `tmp/` for packs on their way in or out, and whether there is room for what comes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from shardfs.errors import OutOfSpaceError
from shardfs.store import atomic
from shardfs.store.layout import Layout


@contextmanager
def scratch(layout: Layout, purpose: str) -> Iterator[Layout]:
    """A layout below `tmp/` that is removed with all its files; `gc` removes what a kill leaves.

    Raises:
        OutOfSpaceError, ReadOnlyError, StoreError: it cannot be made.
    """
    root = layout.tmp / f"{purpose}-{os.getpid()}-{os.urandom(4).hex()}"
    with atomic.os_errors(f"cannot write in {layout.tmp}"):
        root.mkdir(parents=True)
    try:
        yield Layout(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def check_room(layout: Layout, needed: int) -> None:
    """Return if so many bytes fit on the disk of a store now.

    Raises:
        OutOfSpaceError: they do not.
    """
    free = shutil.disk_usage(layout.root).free
    if needed > free:
        msg = f"{needed} bytes are needed in {layout.root} and {free} are free; free some space"
        raise OutOfSpaceError(msg)
