"""One module per command; each defines `command`."""

from __future__ import annotations

from typing import Final

SECTIONS: Final[dict[str, tuple[str, ...]]] = {
    "Start": ("init", "clone", "import"),
    "Work": ("add", "rm", "reset", "status", "commit"),
    "History": ("log", "show", "diff", "ls", "cat", "stats", "reflog"),
    "Mount": ("mount", "umount", "mounts"),
    "Plain files": ("checkout", "export"),
    "Branches and tags": ("branch", "switch", "tag"),
    "Remotes": ("remote", "push", "fetch", "pull", "serve"),
    "Care": ("verify", "gc", "doctor", "config", "completion"),
}


def module_name(command: str) -> str:
    """The module of a command: its name, with an underscore where Python would read a keyword."""
    return f"{command}_" if command == "import" else command
