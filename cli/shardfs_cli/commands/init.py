"""`shardfs init`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path


@define("init", exits=WRITES, examples=("shardfs init", "shardfs init --bare /srv/models/demo"))
@click.argument("directory", default=".")
@click.option("--bare", is_flag=True, help="Make DIRECTORY itself the store, without a work tree.")
@click.option("-b", "--initial-branch", "branch", default="main", metavar="NAME", help="Name of the first branch.")
@click.pass_obj
def command(context: Context, directory: str, *, bare: bool, branch: str) -> None:
    """Make a repository in DIRECTORY (default: here).

    History and contents are kept in DIRECTORY/.shardfs; files that are there already stay as they are.
    """
    import shardfs

    with shardfs.init(file_path(directory), bare=bare, branch=branch) as repository:
        if context.output.json:
            context.output.document({"repository": str(repository.store_path), "branch": branch, "bare": bare})
        context.output.note(f"initialized an empty repository in {output.name(str(repository.store_path))}")
