"""`shardfs unpin`."""

from __future__ import annotations

import click

from shardfs.errors import UsageError
from shardfs_cli import output
from shardfs_cli.command import OPENS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define("unpin", exits=OPENS, examples=("shardfs unpin v1", "shardfs unpin --all"))
@click.argument("where", metavar="[REV[:PATH]]", required=False)
@click.option("--all", "everything", is_flag=True, help="Unpin all of this repository.")
@click.pass_obj
def command(context: Context, where: str | None, *, everything: bool) -> None:
    """Let files be evicted again that `shardfs pin` keeps. They stay until room is needed."""
    if (where is None) != everything:
        msg = "name what to unpin, or --all; `shardfs pin` lists what is pinned"
        raise UsageError(msg)
    with context.repository() as repository:
        rev, path = (None, "") if where is None else context.place(repository, where)
        gone = repository.unpin(rev, path)
    if context.output.json:
        context.output.document({"unpinned": gone})
    context.output.note(f"unpinned {', '.join(map(output.name, gone)) or 'nothing'}")
