"""How moves of refs are told by `push` and `fetch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from shardfs.formats.ref import BRANCHES, REMOTES, TAGS, RefMove
from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.context import Context

if TYPE_CHECKING:
    from shardfs.sharing import FetchReport

_MOST_LINES: Final = 20  # of what is lost; a pack of a large model has thousands of chunks


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


def warn_of(context: Context, report: FetchReport) -> None:
    """Say what a fetch could not bring, and which refs it could not follow."""
    lines = [str(error) for error in report.lost]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more that could not be had"]
    for line in lines + report.conflicts:
        context.output.warn(output.name(line))


def _name(full: str) -> str:
    if full.startswith(TAGS):
        return f"tag {full.removeprefix(TAGS)}"
    return full.removeprefix(BRANCHES).removeprefix(REMOTES)
