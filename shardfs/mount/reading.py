"""Reads files of a mount, so that the kernel has their pages, without ever waiting for a mount that hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Final

from shardfs import discovery
from shardfs.errors import ShardfsError
from shardfs.mount import probe, records

_LOOK_S: Final = 10.0  # for which a busy mount may take to answer
_PROGRAM: Final = """
import os, sys
room = bytearray(1 << 20)
for path in sys.stdin.buffer.read().split(b"\\0"):
    fd = os.open(path, os.O_RDONLY)
    while count := os.readv(fd, [room]):
        os.write(1, count.to_bytes(8, "little"))
    os.close(fd)
"""


def mount_of(store: Path) -> Path | None:
    """Where the repository of a store directory is mounted and the mount answers; None when it does nowhere."""
    found = (r for r in records.list_mounts() if _shows(r.source, store) and probe.state(r, _LOOK_S) == "alive")
    return next((record.mountpoint for record in found), None)


def _shows(source: str, store: Path) -> bool:
    with suppress(ShardfsError, OSError):
        return Path(source).is_absolute() and discovery.find_store(Path(source)).samefile(store)
    return False


def read_all(files: Sequence[Path], stall_s: float, told: Callable[[int], object]) -> int:
    """Read files from beginning to end; returns their bytes.

    Args:
        files: below a mount.
        stall_s: seconds without any progress after which the reading is given up and left behind.
        told: called with the bytes read so far.

    Raises:
        TimeoutError: given up. OSError: a file cannot be read.
    """
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
    )
    steps: SimpleQueue[int | None] = SimpleQueue()
    threading.Thread(target=_follow, args=(process, files, steps), name="shardfs-reading", daemon=True).start()
    done = 0
    try:
        while (step := steps.get(timeout=stall_s)) is not None:
            done += step
            told(done)
    except Empty:
        msg = f"the mount gave nothing for {stall_s:g} s"
        raise TimeoutError(msg) from None
    finally:
        process.kill()  # the thread waits for its end: it may have to wait for the mount
    if process.wait():
        msg = "a file of the mount cannot be read; `.shardfs/errors` below it says why"
        raise OSError(msg)
    return done


def _follow(process: subprocess.Popen[bytes], files: Sequence[Path], steps: SimpleQueue[int | None]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(OSError), process.stdin, process.stdout:  # it may be killed at any time
        process.stdin.write(b"\0".join(map(os.fsencode, files)))
        process.stdin.close()
        while len(step := process.stdout.read(8)) == 8:
            steps.put(int.from_bytes(step, "little"))
    process.wait()
    steps.put(None)
