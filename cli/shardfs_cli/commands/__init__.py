"""One module per command; each defines `command`."""

from __future__ import annotations

from typing import Final

SECTIONS: Final[dict[str, dict[str, str]]] = {
    "Start": {
        "init": "Make a repository.",
        "clone": "Copy a remote's history; contents come when they are read.",
        "import": "Make a whole directory the next commit.",
    },
    "Work": {
        "add": "Put files into staging.",
        "rm": "Remove files from staging and from the work tree.",
        "reset": "Make staging as it is in the last commit.",
        "status": "Show what the next commit will hold.",
        "commit": "Make a version of what is in staging.",
    },
    "History": {
        "log": "Show commits, newest first.",
        "show": "Show one commit and what it changed.",
        "diff": "Show which files changed between two revisions.",
        "ls": "List files of a revision.",
        "cat": "Write a file of a revision to standard output.",
        "stats": "Show how many bytes the versions have, and how many are stored.",
        "reflog": "Show where a branch pointed before.",
    },
    "Mount": {
        "mount": "Show every version as a directory.",
        "umount": "End mounts.",
        "mounts": "List mounts.",
    },
    "Plain files": {
        "checkout": "Write files of a revision.",
        "export": "Write a whole revision into a new directory.",
    },
    "Cache": {
        "prefetch": "Bring contents to this disk, as they are stored.",
        "warm": "Bring files to this disk as plain files.",
        "pin": "Keep files on this disk; list what is kept.",
        "unpin": "Let files be evicted again.",
        "evict": "Remove files from the cache.",
    },
    "Branches and tags": {
        "branch": "List, make and delete branches.",
        "switch": "Make another branch the current one.",
        "tag": "List, make and delete tags.",
    },
    "Remotes": {
        "remote": "List and change remotes, and ask what they have.",
        "push": "Send commits to a remote.",
        "fetch": "Get history of a remote, and contents for good.",
        "pull": "Fetch, then move a branch forward.",
        "login": "Keep a token that opens a remote.",
        "logout": "Forget that token.",
        "mirror": "Keep a full copy of a remote.",
        "serve": "Serve repositories over HTTP.",
        "publish": "Make files that any web server can serve.",
        "token": "Make, list and revoke what opens a server.",
    },
    "Care": {
        "verify": "Read and check everything that is stored.",
        "gc": "Delete stored data that nothing needs.",
        "optimize": "Store heads so that they are read quickly.",
        "doctor": "Find what is wrong, and mend it.",
        "config": "Read and write settings.",
        "completion": "Print a script for completion in the shell.",
    },
}
"""All commands by section, each with what the top help says about it."""


def module_name(command: str) -> str:
    """The module of a command: its name, with an underscore where Python would read a keyword."""
    return f"{command}_" if command == "import" else command
