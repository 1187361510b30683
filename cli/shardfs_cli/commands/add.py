"""`shardfs add`."""

from __future__ import annotations

from pathlib import Path

import click

from shardfs.errors import UsageError
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.progress import bar


@define(
    "add",
    exits=READS_AND_WRITES,
    examples=("shardfs add weights", "shardfs add model.safetensors 'checkpoints/*.pt'", "shardfs add -A"),
)
@click.argument("paths", nargs=-1)
@click.option("-A", "--all", "everything", is_flag=True, help="The whole work tree; files that are gone are removed.")
@click.option("-u", "--update", is_flag=True, help="Also remove files that are gone below PATHS.")
@click.pass_obj
def command(context: Context, paths: tuple[str, ...], *, everything: bool, update: bool) -> None:
    """Put files, directories or glob patterns into staging.

    Contents are stored at once; `shardfs commit` makes them a version. Patterns of .shardfsignore are left out.
    Files whose size and time did not change are not read again.
    """
    if bool(paths) == everything:
        msg = "name the paths to add, or give -A for all"
        raise UsageError(msg)
    with context.repository() as repository, bar(context, "add") as progress:
        base = Path.cwd() if repository.root is None else repository.root
        wanted = [base] if everything else [file_path(path) for path in paths]
        report = repository.add(wanted, update_deleted=update or everything, progress=progress)
    out = context.output
    if out.json:
        out.document(
            {
                "files": report.files,
                "unchanged": report.unchanged,
                "removed": report.removed,
                "bytes_read": report.bytes_read,
                "bytes_stored": report.bytes_stored,
            }
        )
        return
    parts = [f"{output.count(report.files, 'file')} added"]
    if report.unchanged:
        parts.append(f"{report.unchanged} unchanged")
    if report.removed:
        parts.append(f"{report.removed} removed")
    out.note(f"{', '.join(parts)}; {output.size(report.bytes_read)} read, {output.size(report.bytes_stored)} stored")
