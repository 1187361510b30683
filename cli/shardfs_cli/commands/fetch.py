"""`shardfs fetch`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.moves import move_json, move_line
from shardfs_cli.progress import bar


@define(
    "fetch", exits=READS_AND_WRITES, examples=("shardfs fetch", "shardfs fetch backup --prune", "shardfs fetch --full")
)
@click.argument("remote", default="origin")
@click.option("--full", is_flag=True, help="Copy all contents too.")
@click.option("--prune", is_flag=True, help="Forget branches that the remote has no longer.")
@click.pass_context
def command(ctx: click.Context, remote: str, *, full: bool, prune: bool) -> None:
    """Get history and metadata of REMOTE (default: origin). Branches and files here stay as they are.

    What the remote's branches name is then REMOTE/BRANCH here.
    """
    context = ctx.ensure_object(Context)
    out = context.output
    with context.repository() as repository, bar(context, "fetch") as progress:
        report = repository.fetch(remote, full=full, prune=prune, progress=progress)
    for line in report.conflicts:
        out.warn(output.name(line))
    if out.json:
        out.document(
            {
                "remote": remote,
                "moved": [move_json(move) for move in report.moved],
                "conflicts": report.conflicts,
                "packs": report.packs,
                "objects": report.objects,
                "bytes": report.bytes,
            }
        )
    elif report.moved:
        out.note(f"from {remote}: {output.count(report.objects, 'object')}, {output.size(report.bytes)}")
        for move in report.moved:
            out.note(move_line(move))
    else:
        out.note(f"nothing new at {remote}")
    if report.conflicts:
        ctx.exit(ExitStatus.CONFLICT)
