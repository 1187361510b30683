"""`shardfs status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardfs.history.paths import show
from shardfs.history.revisions import short
from shardfs_cli import describe, output
from shardfs_cli.command import WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context

if TYPE_CHECKING:
    from shardfs.staging.changes import StagedChange
    from shardfs.staging.status import Status
    from shardfs_cli.output import Output


@define("status", exits=WRITES, examples=("shardfs status", "shardfs status --json"))
@click.pass_obj
def command(context: Context) -> None:
    """Show what the next commit will hold, and how the files on disk differ from it."""
    with context.repository() as repository:
        status = repository.status()
    out = context.output
    if out.json:
        out.document(
            {
                "branch": status.branch,
                "head": status.head.hex() if status.head else None,
                "staged": [{"path": show(c.path), "change": c.kind.value} for c in status.staged],
                "unfinished": list(status.unfinished),
                "modified": list(status.modified),
                "missing": list(status.missing),
                "untracked": list(status.untracked),
            }
        )
        return
    out.lines(_lines(status, out))


def _lines(status: Status, out: Output) -> list[str]:
    at = f"on branch {status.branch}" if status.branch else "HEAD is detached"
    lines = [f"{at}, {f'at {short(status.head)}' if status.head else 'no commits yet'}"]
    if status.staged:
        lines += ["", "staged; `shardfs commit` makes it a version:"]
        lines += output.table([_row(c, out) for c in status.staged], indent="  ")
    if status.unfinished:
        lines += ["", "being written now; a commit takes the last whole content:"]
        lines += [f"  *  {output.name(path)}" for path in status.unfinished]
    changed = [(out.style("M", "yellow"), path) for path in status.modified]
    changed += [(out.style("D", "red"), path) for path in status.missing]
    if changed:
        lines += ["", "not staged; `shardfs add` stages them:"]
        lines += [f"  {mark}  {output.name(path)}" for mark, path in sorted(changed, key=lambda row: row[1])]
    if status.untracked:
        lines += ["", "not tracked; `shardfs add` tracks them:"]
        lines += [f"  ?  {output.name(path)}" for path in status.untracked]
    if len(lines) == 1:
        lines.append("nothing to commit, no file differs" if status.branch else "no branch, no staging to compare with")
    return lines


def _row(change: StagedChange, out: Output) -> list[str]:
    size = "" if change.kind.value == "deleted" else output.size(change.size)
    return [describe.mark(change.kind.value, out), output.name(show(change.path)), size]
