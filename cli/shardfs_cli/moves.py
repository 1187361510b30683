"""How moves of refs are told by `push` and `fetch`."""

from __future__ import annotations

from typing import Any, Protocol

from shardfs.formats.ref import BRANCHES, REMOTES, TAGS
from shardfs.history.revisions import short
from shardfs_cli import output


class Move(Protocol):
    """A ref that moved, here or at a remote; None stands for "did not exist" and "is gone"."""

    @property
    def name(self) -> str:
        """Full name."""
        ...

    @property
    def old(self) -> bytes | None:
        """Where it was."""
        ...

    @property
    def new(self) -> bytes | None:
        """Where it is."""
        ...


def move_json(move: Move) -> dict[str, Any]:
    """A move as JSON."""
    return {
        "ref": move.name,
        "old": move.old.hex() if move.old else None,
        "new": move.new.hex() if move.new else None,
    }


def move_line(move: Move) -> str:
    """A move as a line for people."""
    new = short(move.new) if move.new else "deleted"
    ends = f"{short(move.old)} -> {new}" if move.old else f"new at {new}"
    return f"  {output.name(_name(move.name))}  {ends}"


def _name(full: str) -> str:
    if full.startswith(TAGS):
        return f"tag {full.removeprefix(TAGS)}"
    return full.removeprefix(BRANCHES).removeprefix(REMOTES)
