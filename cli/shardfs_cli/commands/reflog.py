"""`shardfs reflog`."""

from __future__ import annotations

import click

from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.command import OPENS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define("reflog", exits=OPENS, examples=("shardfs reflog", "shardfs reflog experiment --json"))
@click.argument("branch", required=False)
@click.pass_obj
def command(context: Context, branch: str | None) -> None:
    """Show where BRANCH (default: the current one) pointed, newest first.

    `gc` keeps what a reflog names: a commit that a branch has lost can be tagged again by its id.
    """
    out = context.output
    with context.repository() as repository:
        lines = repository.reflog(branch)
    if out.json:
        out.document(
            [
                {
                    "old": line.old.hex() if line.old else None,
                    "new": line.new.hex() if line.new else None,
                    "time": output.time(line.time_us),
                    "author": line.author,
                    "message": line.message,
                }
                for line in lines
            ]
        )
        return
    for line in lines:
        id_ = short(line.new) if line.new else "deleted".ljust(12)
        out.line(f"{out.style(id_, 'yellow')}  {output.local_time(line.time_us)}  {output.name(line.message)}")
