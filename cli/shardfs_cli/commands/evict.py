"""`shardfs evict`."""

from __future__ import annotations

import click

from shardfs.errors import UsageError
from shardfs_cli import output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus


@define(
    "evict",
    exits=(*READS, ExitStatus.CONFLICT),
    examples=("shardfs evict v1", "shardfs evict HEAD:weights", "shardfs evict --all"),
)
@click.argument("where", metavar="[REV[:PATH]]", required=False)
@click.option("--all", "everything", is_flag=True, help="Everything in the cache, of all repositories.")
@click.option("-f", "--force", is_flag=True, help="Also what is pinned; the pins go too.")
@click.pass_obj
def command(context: Context, where: str | None, *, everything: bool, force: bool) -> None:
    """Remove plain files and fetched chunks of a revision from the cache of this user. Nothing that is stored is lost.

    What is pinned is refused, or with --all left alone. Programs that have a file open keep it.
    """
    if (where is None) != everything:
        msg = "name what to evict, or --all"
        raise UsageError(msg)
    with context.repository() as repository:
        rev, path = (None, "") if where is None else context.place(repository, where)
        freed = repository.evict(rev, path, force=force)
    if context.output.json:
        context.output.document({"freed_bytes": freed})
    context.output.note(f"freed {output.size(freed)}")
