"""How much memory this process may take, as the machine and its control groups say."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

MOST: Final = 256 << 20  # bytes; more decoded chunks than these are hardly ever wanted again
LEAST: Final = 16 << 20  # bytes; one of the largest chunks
_OF_MACHINE: Final = 8  # one part in so many of the machine's memory
_OF_GROUP: Final = 4  # one part in so many of what a control group may use, the pages of the programs in it included
_GROUPS: Final = Path("/proc/self/cgroup")
_GROUP_HOME: Final = Path("/sys/fs/cgroup")
_UNLIMITED: Final = 1 << 60  # bytes; version 1 has a number near 2**63 for none


def default() -> int:
    """Bytes for decoded chunks when no setting says how many: `LEAST` to `MOST`."""
    shares = [MOST, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _OF_MACHINE]
    if (limit := memory_limit()) is not None:
        shares.append(limit // _OF_GROUP)
    return max(LEAST, min(shares))


def memory_limit() -> int | None:
    """Bytes that the control groups of this process may use, the tightest; None without a limit."""
    found = []
    with suppress(OSError):
        for line in _GROUPS.read_text("utf-8", "surrogateescape").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers == "":
                home, name = _GROUP_HOME, "memory.max"
            elif "memory" in controllers.split(","):
                home, name = _GROUP_HOME / "memory", "memory.limit_in_bytes"
            else:
                continue
            group = home / path.lstrip("/")
            # Inside a container the path may be one of the host's: then the root of what is seen is the group.
            folders = [group, *group.parents[: len(group.parts) - len(home.parts)], home]
            found += [limit for folder in folders if (limit := _number(folder / name)) is not None]
    return min((limit for limit in found if 0 < limit < _UNLIMITED), default=None)


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text("ascii"))
    return None
