"""Ending mounts, in bounded time and without touching them."""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from shardfs import mountinfo
from shardfs.errors import MountError
from shardfs.mount import records
from shardfs.mount.records import MountRecord

_log = logging.getLogger(__name__)

TOOL: Final = "fusermount3"
_CONNECTIONS: Final = Path("/sys/fs/fuse/connections")
_KILL_WAIT_S: Final = 2.0  # a killed process is gone after milliseconds, unless the machine is very busy
_NAMED: Final = 5  # processes that a "busy" message names


def unmount(mountpoint: Path, *, force: bool = False, timeout_s: float = 10.0) -> None:
    """End a mount and wait for its daemon.

    Args:
        mountpoint: where it is mounted.
        force: also when programs use it: it vanishes from the tree at once and their open files fail.
        timeout_s: seconds until a daemon that does not end is killed.

    Raises:
        MountError: nothing of shardfs is mounted there, or it is busy and `force` is not set; the message names the
            processes that use it.
    """
    point = locate(mountpoint)
    row = mountinfo.top_row(point)
    record = records.read(point)
    if row is None or row.type != mountinfo.TYPE:
        if record is not None and record.status == "dead":
            records.forget(record)
        msg = f"{point} is not a mount of shardfs; `shardfs mounts` lists what is mounted"
        raise MountError(msg)
    deadline = time.monotonic() + timeout_s
    if record is not None and record.status == "dead":
        detach(point)
    else:
        _detach_live(point, record, force=force, timeout_s=timeout_s)
    if record is not None:
        _end_daemon(record, deadline)
        clear(record)


def detach(mountpoint: Path, timeout_s: float = 5.0) -> None:
    """Take a mount out of the tree even if it is busy or dead.

    Raises:
        MountError: the tool is missing, refused or hangs.
    """
    problem = _run_tool(mountpoint, lazy=True, timeout_s=timeout_s)
    if problem is not None and mountinfo.top_row(mountpoint) is not None:
        msg = f"cannot unmount {mountpoint}: {problem}"
        raise MountError(msg)


def clear(record: MountRecord) -> None:
    """Remove what a mount leaves behind: its record, and its mount point if it was made for the mount."""
    records.forget(record)
    if record.made_mountpoint and mountinfo.top_row(record.mountpoint) is None:
        with suppress(OSError):
            record.mountpoint.rmdir()


def abort(record: MountRecord) -> bool:
    """Make the kernel give up a mount: whoever waits for it gets an error. False where the kernel cannot be told.

    The last resort: a daemon that waits for its own mount cannot even be killed.
    """
    try:
        (_CONNECTIONS / str(record.connection) / "abort").write_text("1")
    except OSError:
        return False
    _log.warning("the connection of %s was aborted", record.mountpoint)
    return True


def users(mountpoint: Path) -> list[str]:
    """Processes that have files of a mount open, mapped or as working directory, as "name (pid)".

    Reads /proc only; processes of others are visible to root alone.
    """
    inside = os.fsencode(mountpoint)
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and any(_is_below(path, inside) for path in _paths_in_use(process)):
            with suppress(OSError):
                found.append(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return found


def locate(mountpoint: Path) -> Path:
    """The absolute path that the kernel's table has; links are followed only where nothing is mounted."""
    point = Path(os.path.abspath(mountpoint))  # noqa: PTH100 - Path.resolve would look at the mount
    if mountinfo.top_row(point) is not None:
        return point
    with suppress(OSError):
        behind_links = point.parent.resolve() / point.name
        return behind_links if mountinfo.top_row(behind_links) is not None else point.resolve()
    return point


def _detach_live(point: Path, record: MountRecord | None, *, force: bool, timeout_s: float) -> None:
    problem = _run_tool(point, lazy=False, timeout_s=timeout_s)
    if problem is None:
        return
    if not force:
        using = users(point)
        listed = ", ".join(using[:_NAMED]) + (f" and {len(using) - _NAMED} more" if len(using) > _NAMED else "")
        reason = f"in use by {listed}; end them or use --force" if using else f"{problem}; use --force"
        msg = f"cannot unmount {point}: {reason}"
        raise MountError(msg)
    detach(point)
    if record is not None:  # the connection lives as long as an open file; the daemon need not
        with suppress(ProcessLookupError):
            os.kill(record.pid, signal.SIGTERM)


def _end_daemon(record: MountRecord, deadline: float) -> None:
    try:
        fd = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if record.status == "dead" or _ends(fd, max(0.0, deadline - time.monotonic())):
            return
        _log.warning("daemon %d of %s does not end, it is killed", record.pid, record.mountpoint)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        if not _ends(fd, _KILL_WAIT_S):
            abort(record)
            _ends(fd, _KILL_WAIT_S)
    finally:
        os.close(fd)


def _ends(pidfd: int, timeout_s: float) -> bool:
    return bool(select.select([pidfd], [], [], timeout_s)[0])


def _run_tool(mountpoint: Path, *, lazy: bool, timeout_s: float) -> str | None:
    """Run the unmount tool; None when it succeeded, else what it said."""
    if shutil.which(TOOL) is not None:
        command = [TOOL, "-uz" if lazy else "-u", "--", str(mountpoint)]
    else:  # root can do without it
        command = ["umount", *(["-l"] if lazy else []), "--", str(mountpoint)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False)
    except FileNotFoundError:
        return f"{TOOL} is not installed; for example: apt install fuse3"
    except subprocess.TimeoutExpired:
        return f"{command[0]} did not end in {timeout_s:.0f} s"
    if done.returncode == 0:
        return None
    return " ".join(done.stderr.split()) or f"{command[0]} ended with status {done.returncode}"


def _paths_in_use(process: Path) -> list[bytes]:
    found = []
    with suppress(OSError):
        links = [process / "cwd", process / "root", process / "exe", *(process / "fd").iterdir()]
        for link in links:
            with suppress(OSError):
                found.append(os.fsencode(link.readlink()))
    with suppress(OSError):
        lines = (process / "maps").read_bytes().splitlines()
        found += {fields[5] for line in lines if len(fields := line.split(None, 5)) == 6}
    return found


def _is_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder + b"/")
