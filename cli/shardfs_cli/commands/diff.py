"""`shardfs diff`."""

from __future__ import annotations

from typing import Any

import click

from shardfs.formats.tree import FileEntry
from shardfs_cli import describe, output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context


@define("diff", exits=READS, examples=("shardfs diff v1 HEAD", "shardfs diff HEAD~1 HEAD weights --stat"))
@click.argument("old")
@click.argument("new", default="HEAD")
@click.argument("path", required=False)
@click.option("--stat", is_flag=True, help="Also how many bytes of each file are new.")
@click.pass_obj
def command(context: Context, old: str, new: str, path: str | None, *, stat: bool) -> None:
    """Show which files changed from revision OLD to revision NEW (default: HEAD), below PATH if given."""
    out = context.output
    with context.repository() as repository:
        below = "" if path is None else context.path_in(repository, path)
        found = repository.diff(old, new, below)
        shared = [repository.shared_bytes(change) if stat else None for change in found]
        ends = {"old": repository.resolve(old).hex(), "new": repository.resolve(new).hex()}
    if out.json:
        listed = [{**describe.change_json(c), "shared_bytes": s} for c, s in zip(found, shared, strict=True)]
        out.document({**ends, "changes": listed})
        return
    rows = [
        [*describe.change_row(change, out), _new_bytes(change.new, same)]
        for change, same in zip(found, shared, strict=True)
    ]
    out.lines(output.table(rows))
    out.line(describe.summary(found))


def _new_bytes(new: Any, shared: int | None) -> str:
    if shared is None or not isinstance(new, FileEntry):
        return ""
    return f"{output.size(new.size - shared)} new"
