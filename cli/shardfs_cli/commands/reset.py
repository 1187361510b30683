"""`shardfs reset`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path


@define("reset", exits=READS_AND_WRITES, examples=("shardfs reset model.pt", "shardfs reset"))
@click.argument("paths", nargs=-1)
@click.pass_obj
def command(context: Context, paths: tuple[str, ...]) -> None:
    """Make PATHS in staging (default: all) as they are in the last commit. Files on disk stay as they are."""
    with context.repository() as repository:
        changed = repository.reset([file_path(path) for path in paths])
    if context.output.json:
        context.output.document({"reset": changed})
    context.output.note(f"{output.count(len(changed), 'path')} reset")
