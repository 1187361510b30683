"""Lines and units that make the system mount at boot: fstab(5), systemd.service(5)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from shardfs.mountinfo import TYPE

_STOP_S: Final = 30  # a mount ends within 10 s; the rest is for a busy machine
_WATCHDOG_S: Final = 180  # remotes may keep every thread waiting for the deadline, 30 s unless set otherwise
_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")


def fstab_line(source: str, mountpoint: Path, words: Sequence[str], *, remote: bool) -> str:
    """The line of /etc/fstab that mounts a repository or a remote when it is first looked at."""
    waits = ["nofail", "x-systemd.automount", *(["_netdev"] if remote else [])]
    fields = (source, str(mountpoint), TYPE, ",".join([*words, *waits]))
    return "  ".join([*map(_fstab_field, fields), "0", "0"])


def service(command: Sequence[str], mountpoint: Path, source: str, *, user: str | None, remote: bool) -> str:
    """A unit of systemd that mounts and, when the daemon fails, mounts again.

    Args:
        command: what serves the mount in the foreground, the program as an absolute path.
        mountpoint: where, absolute.
        source: what, for people.
        user: who serves it; None for root.
        remote: the network has to be there first.
    """
    after = "network-online.target" if remote else "local-fs.target"
    lines = [
        "[Unit]",
        f"Description=shardfs mount of {_unit_text(source)} at {_unit_text(str(mountpoint))}",
        f"After={after}",
        *(["Wants=network-online.target"] if remote else []),
        "",
        "[Service]",
        "Type=notify",
        *([f"User={user}"] if user is not None else []),
        f"ExecStart={_command(command)}",
        f"ExecStop=-{_command([command[0], 'umount', '--force', str(mountpoint)])}",
        "Restart=on-failure",
        "RestartSec=2",
        f"TimeoutStopSec={_STOP_S}",
        f"WatchdogSec={_WATCHDOG_S}",
        "",
        "[Install]",
        "WantedBy=multi-user.target",
    ]
    return "\n".join(lines) + "\n"


def _fstab_field(text: str) -> str:
    return "".join(f"\\{ord(c):03o}" if c in " \t\n\\#" else c for c in text)


def _command(words: Sequence[str]) -> str:
    return " ".join(map(_unit_word, words))


def _unit_word(text: str) -> str:
    """One argument of a command line: specifiers, variables, quotes and backslashes mean themselves."""
    text = _unit_text(text).replace("$", "$$")
    if _PLAIN.fullmatch(text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'


def _unit_text(text: str) -> str:
    return text.replace("%", "%%")
