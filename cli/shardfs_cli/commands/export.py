"""`shardfs export`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.progress import bar


@define("export", exits=(*READS, ExitStatus.CONFLICT), examples=("shardfs export v1 /tmp/model",))
@click.argument("rev")
@click.argument("directory")
@click.pass_obj
def command(context: Context, rev: str, directory: str) -> None:
    """Write all files of revision REV into DIRECTORY, which must be missing or empty."""
    out = context.output
    with context.repository() as repository:
        id_ = repository.resolve(rev).hex()
        with bar(context, "export") as progress:
            report = repository.export(rev, file_path(directory), progress=progress)
    if out.json:
        out.document({"commit": id_, "files": report.files, "bytes": report.bytes})
    out.note(f"{output.count(report.files, 'file')} written, {output.size(report.bytes)}")
