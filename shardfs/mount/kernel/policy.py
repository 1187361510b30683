"""For how long the kernel may keep what it was told.

What a program changes through the mount the kernel knows at once, or is told by `notices`. The times are for changes by
other processes: with `refs.CHECK_EVERY_S` each is visible within a second.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from shardfs.mount.kernel.messages import ROOT_ID
from shardfs.mount.kernel.table import Known
from shardfs.mount.vfs import Vfs

FOREVER: Final = 10**9  # seconds; the kernel's own limit lies above
BRIEF: Final = 0.75
NEVER: Final = 0.0


class Lifetime(NamedTuple):
    """Seconds."""

    entry: float  # that the name leads there
    attr: float


def lifetime(vfs: Vfs, parent: Known, known: Known) -> Lifetime:
    """Of an entry of a directory.

    The node of a link is another one when its target is, so that its attributes and target can be kept for ever.
    """
    if parent.is_committed:
        entry: float = FOREVER
    elif parent.id == ROOT_ID and known.node.is_dir:
        entry = FOREVER
    else:
        entry = BRIEF
    return Lifetime(entry, attr_lifetime(vfs, known))


def attr_lifetime(vfs: Vfs, known: Known) -> float:
    """Of attributes."""
    node = known.node
    if known.is_committed:
        return FOREVER
    if vfs.is_staged(node) or node.is_dir:
        return BRIEF
    return FOREVER if node.is_link else NEVER


def absence(parent: Known) -> float:
    """Of the knowledge that a directory has no entry of a name."""
    return FOREVER if parent.is_committed else NEVER
