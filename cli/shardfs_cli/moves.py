"""How moves of refs are told by `push` and `fetch`."""

from __future__ import annotations

from typing import Any

from shardfs.formats.ref import BRANCHES, REMOTES, TAGS, RefMove
from shardfs.history.revisions import short
from shardfs_cli import output


def move_json(move: RefMove) -> dict[str, Any]:
    """A move as JSON."""
    return {
        "ref": move.name,
        "old": move.old.hex() if move.old else None,
        "new": move.new.hex() if move.new else None,
    }


def move_line(move: RefMove) -> str:
    """A move as a line for people."""
    new = short(move.new) if move.new else "deleted"
    ends = f"{short(move.old)} -> {new}" if move.old else f"new at {new}"
    return f"  {output.name(_name(move.name))}  {ends}"


def _name(full: str) -> str:
    if full.startswith(TAGS):
        return f"tag {full.removeprefix(TAGS)}"
    return full.removeprefix(BRANCHES).removeprefix(REMOTES)
