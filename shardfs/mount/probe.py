"""Looking at a mount that may hang: another process looks, and is left behind when it does not come back.

A process that waits for a daemon that has stopped cannot even be killed before the daemon answers. So whoever must go
on never touches a mount itself, and never waits for the process that does.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

from shardfs import mountinfo
from shardfs.mount.records import MountRecord

State = Literal["alive", "dead", "not answering"]

WAIT_S: Final = 5.0  # an answer takes milliseconds; on a busy machine the other process takes a while to start
# The kernel keeps attributes, but always asks the daemon for the space of the file system.
_LOOK: Final = "os.statvfs(path)"
_READ: Final = "sys.stdout.buffer.write(open(path, 'rb').read())"
_PROGRAM: Final = """
import os, sys
path = sys.argv[1]
try:
    {}
except OSError as error:
    sys.exit(error.errno)
"""
_LEFT: Final = (errno.ENOTCONN, errno.ECONNABORTED)  # nobody serves the mount any more


def state(record: MountRecord, timeout_s: float = WAIT_S) -> State:
    """Whether a mount can be used: "dead" without its daemon, "not answering" when that is stuck or the mount gone."""
    if record.status == "dead":
        return "dead"
    return "alive" if answers(record.mountpoint, timeout_s) else "not answering"


def answers(mountpoint: Path, timeout_s: float = WAIT_S) -> bool:
    """Whether shardfs is mounted at an absolute path and answers in time."""
    row = mountinfo.top_row(mountpoint)
    if row is None or row.type != mountinfo.TYPE:
        return False
    with suppress(OSError):
        _ask(_LOOK, mountpoint, timeout_s)
        return True
    return False


def is_dead(mountpoint: Path, timeout_s: float = WAIT_S) -> bool:
    """Whether a mount is known to have lost its daemon; False also when it does not answer."""
    try:
        _ask(_LOOK, mountpoint, timeout_s)
    except OSError as error:
        return error.errno in _LEFT
    return False


def read(path: Path, timeout_s: float = WAIT_S) -> bytes:
    """The content of a file below a mount.

    Raises:
        TimeoutError: no answer in time. OSError: it cannot be read.
    """
    return _ask(_READ, path, timeout_s)


def _ask(action: str, path: Path, timeout_s: float) -> bytes:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM.format(action), os.fsencode(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    try:
        output, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        threading.Thread(target=process.communicate, name="shardfs-probe", daemon=True).start()
        raise TimeoutError(errno.ETIMEDOUT, f"no answer in {timeout_s:g} s", str(path)) from None
    if process.returncode:
        code = process.returncode if process.returncode > 0 else errno.EIO
        raise OSError(code, os.strerror(code), str(path))
    return output
