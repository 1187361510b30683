"""Telling systemd how it goes: sd_notify(3) without its library. Without systemd nothing happens."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


def send(*words: str) -> None:
    """Tell the service manager, if there is one, something such as "READY=1"."""
    place = os.environ.get("NOTIFY_SOCKET")
    if not place:
        return
    address = f"\0{place[1:]}" if place.startswith("@") else place
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
            door.sendto("\n".join(words).encode("utf-8", "surrogateescape"), address)
    except OSError as error:
        _log.warning("%s: %s", place, error.strerror)


def watchdog_s() -> float | None:
    """Seconds after which the service manager ends this process unless it hears of it; None when it does not."""
    interval, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID") or str(os.getpid())
    return int(interval) / 1e6 if interval.isdecimal() and int(interval) and pid == str(os.getpid()) else None


def keep_alive(answers: Callable[[float], bool], ended: threading.Event) -> None:
    """Say regularly, on a thread of its own, that all is well, as long as it is.

    Args:
        answers: whether what this process serves answers within so many seconds.
        ended: set when there is nothing more to say.
    """
    limit = watchdog_s()
    if limit is None:
        return

    def watch(every: float) -> None:
        while not ended.wait(every):
            if answers(every):
                send("WATCHDOG=1")
            else:
                _log.warning("the mount did not answer in %.1f s: the watchdog is not told that it is well", every)

    # With a quarter for the pause and a quarter for an answer, one missed beat does not end the process.
    threading.Thread(target=watch, args=(limit / 4,), name="shardfs-watchdog", daemon=True).start()
