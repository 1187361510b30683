"""`shardfs push`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.moves import move_json, move_line
from shardfs_cli.progress import bar


@define(
    "push",
    exits=READS_AND_WRITES,
    examples=("shardfs push", "shardfs push origin main --tags", "shardfs push backup experiment --force"),
)
@click.argument("remote", default="origin")
@click.argument("branches", nargs=-1)
@click.option("--tags", is_flag=True, help="Also all tags.")
@click.option("--force", is_flag=True, help="Move a branch of the remote even if it loses commits.")
@click.pass_obj
def command(context: Context, remote: str, branches: tuple[str, ...], *, tags: bool, force: bool) -> None:
    """Send what REMOTE (default: origin) lacks of BRANCHES (default: the current one), then move its refs.

    An interrupted push goes on where it was when it is run again.
    """
    out = context.output
    with context.repository() as repository, bar(context, "push") as progress:
        report = repository.push(remote, branches, tags=tags, force=force, progress=progress)
        url = repository.remotes()[remote]
    if out.json:
        out.document(
            {
                "remote": remote,
                "url": url,
                "moved": [move_json(move) for move in report.moved],
                "up_to_date": report.up_to_date,
                "packs": report.packs,
                "objects": report.objects,
                "bytes": report.bytes,
            }
        )
        return
    if not report.moved:
        out.note(f"{output.name(url)} is up to date")
        return
    out.note(f"to {output.name(url)}: {output.size(report.bytes)} in {output.count(report.packs, 'pack')}")
    for move in report.moved:
        out.note(move_line(move))
