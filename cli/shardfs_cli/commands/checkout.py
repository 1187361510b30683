"""`shardfs checkout`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.progress import bar


@define(
    "checkout",
    exits=READS_AND_WRITES,
    examples=("shardfs checkout v1 weights/model.pt", "shardfs checkout HEAD~3 --into ../restored"),
)
@click.argument("rev")
@click.argument("paths", nargs=-1)
@click.option("--into", metavar="DIR", help="Write below DIR instead of over the work tree.")
@click.option("-f", "--force", is_flag=True, help="Overwrite files whose content is stored nowhere.")
@click.pass_obj
def command(context: Context, rev: str, paths: tuple[str, ...], *, into: str | None, force: bool) -> None:
    """Write PATHS (default: all files) of revision REV as plain files.

    The current branch stays the same: `shardfs switch` moves to another one.
    """
    out = context.output
    with context.repository() as repository:
        wanted = [context.path_in(repository, path) for path in paths]
        target = None if into is None else file_path(into)
        id_ = repository.resolve(rev).hex()
        with bar(context, "checkout") as progress:
            report = repository.checkout(rev, wanted, into=target, force=force, progress=progress)
    if out.json:
        out.document({"commit": id_, "files": report.files, "bytes": report.bytes})
    out.note(f"{output.count(report.files, 'file')} written, {output.size(report.bytes)}")
