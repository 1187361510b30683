"""A look at all mounts of a user: dead, stuck or slow ones, and what their logs complain about.

Mounts are looked at by other processes, so that this ends in seconds whatever state they are in.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Final

from shardfs import mountinfo
from shardfs.errors import MountError
from shardfs.maintenance.findings import FIX, Finding
from shardfs.mount import probe, records, umount
from shardfs.mount.records import MountRecord
from shardfs.mountinfo import MountRow

_AT_ONCE: Final = 16  # mounts
_READ_AHEAD_KB: Final = 256  # the least that a mount by root sets; less makes more and smaller requests
_RECENT_S: Final = 86400.0
_TAIL: Final = 64 << 10  # bytes of each log
_TEXT: Final = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),\d+ (?:ERROR|CRITICAL) \d+ \S+ (.*)")


def diagnose() -> list[Finding]:
    """What there is to say about mounts. Changes nothing."""
    known, strange = _mounts()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        states = list(pool.map(probe.state, known))
        dead = list(pool.map(lambda row: probe.is_dead(row.mountpoint), strange))
    findings: list[Finding] = []
    for record, state in zip(known, states, strict=True):
        findings += [_told(record, state), *_slow(record), *_complaints(record)]
    for row, lost in zip(strange, dead, strict=True):
        point = row.mountpoint
        if lost:
            what = f"the mount {point} has lost its daemon, and was made by another user or its record is lost"
            findings.append(Finding("warning", what, f"shardfs umount --force {point}"))
        else:
            findings.append(Finding("note", f"the mount {point} is another user's, or its record is lost"))
    return findings or [Finding("ok", "nothing is mounted")]


def fix() -> Iterator[Finding]:
    """End mounts of this user that have lost their daemons. What still answers, or may yet, is left alone."""
    for record in records.list_mounts():
        if record.status == "dead":
            yield _ended(record.mountpoint)


def _mounts() -> tuple[list[MountRecord], list[MountRow]]:
    """The mounts that there are records of, and those of this program that there are none of."""
    known = records.list_mounts()
    points = {record.mountpoint for record in known}
    with suppress(MountError):
        rows = {row.mountpoint: row for row in mountinfo.rows() if row.type == mountinfo.TYPE}
        return known, [row for point, row in rows.items() if point not in points]
    return known, []


def _ended(point: Path) -> Finding:
    try:
        umount.unmount(point, force=True)
    except MountError as error:
        return Finding("error", str(error), f"as root: umount -l {point}")
    return Finding("ok", f"the dead mount {point} was ended")


def _told(record: MountRecord, state: probe.State) -> Finding:
    point = record.mountpoint
    if state == "dead":
        return Finding("warning", f"the mount {point} has lost its daemon", FIX)
    if state == "alive":
        return Finding("ok", f"the mount {point} answers, process {record.pid}")
    if mountinfo.top_row(point) is None:
        what = f"process {record.pid} serves {point}, which is not mounted here any more: files of it may be open"
        return Finding("note", what, f"kill {record.pid}")
    log = "" if record.log is None else f"; its log is {record.log}"
    what = f"the mount {point} does not answer: process {record.pid} is stuck, or every thread of it waits{log}"
    return Finding("error", what, f"shardfs umount --force {point}")


def _slow(record: MountRecord) -> Iterator[Finding]:
    setting = Path(f"/sys/class/bdi/0:{record.connection}/read_ahead_kb")
    with suppress(OSError, ValueError):
        if 0 < int(setting.read_text("ascii")) < _READ_AHEAD_KB:
            what = f"the kernel reads the mount {record.mountpoint} in small pieces"
            yield Finding("note", what, f"as root: echo {_READ_AHEAD_KB} > {setting}")


def _complaints(record: MountRecord) -> Iterator[Finding]:
    """Errors in the log of a mount, of the last day."""
    if record.log is None:
        return
    found = list(_errors(record.log, since=time.time() - _RECENT_S))
    if found:
        what = f"{len(found)} errors in the log of {record.mountpoint} since yesterday, the last: {found[-1]}"
        yield Finding("warning", what, f"tail {record.log}")


def _errors(log: Path, since: float) -> Iterator[str]:
    for line in tail(log, _TAIL).decode("utf-8", "replace").splitlines():
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            if line.startswith("{"):
                value = json.loads(line)
                when, bad = datetime.fromisoformat(value["time"]), value["level"] in ("error", "critical")
                message = " ".join(value["message"].split())
            elif text := _TEXT.fullmatch(line):
                when, bad, message = datetime.fromisoformat(text[1]).astimezone(), True, text[2]
            else:
                continue
            if bad and when.timestamp() >= since:
                yield message


def tail(path: Path, size: int) -> bytes:
    """The last whole lines of a file, at most so many bytes; nothing when it cannot be read."""
    with suppress(OSError), path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - size))
        data = file.read(size)
        return data if end <= size else data.partition(b"\n")[2]
    return b""
