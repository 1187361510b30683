"""`shardfs rm`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path


@define("rm", exits=READS_AND_WRITES, examples=("shardfs rm old.pt", "shardfs rm --keep data"))
@click.argument("paths", nargs=-1, required=True)
@click.option("--keep", is_flag=True, help="Leave the files on disk; only stop tracking them.")
@click.pass_obj
def command(context: Context, paths: tuple[str, ...], *, keep: bool) -> None:
    """Remove files or directories from staging and from the work tree.

    A file with changes that are stored nowhere is refused, and nothing is removed.
    """
    with context.repository() as repository:
        removed = repository.remove([file_path(path) for path in paths], keep=keep)
    if context.output.json:
        context.output.document({"removed": removed})
    for path in removed:
        context.output.note(f"removed {output.name(path)}")
