"""What a mount does, a line a second. The mount is looked at by another process: this one never hangs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from shardfs import mountinfo
from shardfs.errors import MountError, UsageError
from shardfs.mount import probe, records, umount
from shardfs_cli import output
from shardfs_cli.output import Output

_EVERY_S: Final = 1.0
_HEAD_EVERY: Final = 20  # lines
_HEADS: Final = ("time", "reads/s", "read/s", "written/s", "memory", "remote/s", "errors/s", "open", "rss", "cpu")
_WIDTHS: Final = (8, 7, 9, 9, 6, 9, 8, 5, 9, 5)
_READS: Final = ("read", "read_pieces")
_SOURCES: Final = ("memory_hits", "local_reads", "cache_reads", "remote_reads")


def find(given: Path | None) -> Path:
    """The mount that a user means: the given one, the one around the current directory, or the only one.

    Raises:
        UsageError: none was given and there is not exactly one. MountError: it is no mount of shardfs.
    """
    if given is None:
        here = Path.cwd()
        mounted = [record.mountpoint for record in records.list_mounts()]
        around = [point for point in mounted if here.is_relative_to(point)]
        found = around or mounted
        if len(found) != 1:
            listed = ", ".join(map(str, found)) or "there is none"
            msg = f"name the mount to watch: {listed}"
            raise UsageError(msg)
        return found[0]
    point = umount.locate(given)
    _require_mounted(point)
    return point


def watch(out: Output, point: Path) -> None:
    """Print until Ctrl-C.

    Raises:
        MountError: the mount has ended.
    """
    before: dict[str, Any] | None = None
    printed = 0
    try:
        while True:
            now = _look(point)
            if out.json:
                out.line(
                    json.dumps({"time": output.time(time.time_ns() // 1000), "answers": now is not None, **(now or {})})
                )
            elif now is None:
                out.line(f"{time.strftime('%H:%M:%S')}  no answer")
            elif before is not None:
                if printed % _HEAD_EVERY == 0:
                    out.line(_line(_HEADS))
                out.line(_line(_row(before, now)))
                printed += 1
            output.flush()
            before = now
            time.sleep(_EVERY_S)
    except KeyboardInterrupt:
        return


def _look(point: Path) -> dict[str, Any] | None:
    """The counters; None when the mount does not answer."""
    try:
        found = json.loads(probe.read(point / ".shardfs" / "stats.json"))
    except TimeoutError:
        return None
    except (OSError, ValueError) as error:
        _require_mounted(point)
        msg = f"{point} cannot be watched: {error}; `shardfs doctor` says more"
        raise MountError(msg) from error
    assert isinstance(found, dict)
    return found


def _require_mounted(point: Path) -> None:
    row = mountinfo.top_row(point)
    if row is None or row.type != mountinfo.TYPE:
        msg = f"{point} is not a mount of shardfs; `shardfs mounts` lists what is mounted"
        raise MountError(msg)


def _row(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[str, ...]:
    span = max(now["uptime_s"] - before["uptime_s"], 1e-3)
    mount, process, reader = (
        _Change(before.get(part, {}), now.get(part, {})) for part in ("mount", "process", "reader")
    )
    requests, errors = mount.inner("requests"), mount.inner("errors")
    asked = sum(map(reader.of, _SOURCES))
    return (
        time.strftime("%H:%M:%S"),
        f"{sum(map(requests.of, _READS)) / span:.0f}",
        output.size(int(mount.of("read_bytes") / span)),
        output.size(int(mount.of("written_bytes") / span)),
        f"{100 * reader.of('memory_hits') / asked:.0f}%" if asked else "",
        output.size(int(reader.of("remote_bytes") / span)),
        f"{sum(map(errors.of, errors.now)) / span:.0f}",
        str(mount.now.get("open_files", "")),
        output.size(process.now.get("rss_bytes", 0)),
        f"{100 * process.of('cpu_s') / span:.0f}%",
    )


class _Change:
    """Counters of one part at two moments; 0 for those that it does not have."""

    def __init__(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        self.before = before
        self.now = now

    def of(self, name: str) -> float:
        """By how much a counter has grown."""
        return float(self.now.get(name, 0) - self.before.get(name, 0))

    def inner(self, name: str) -> _Change:
        """The counters of a field that has several."""
        return _Change(self.before.get(name, {}), self.now.get(name, {}))


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS, strict=True))
