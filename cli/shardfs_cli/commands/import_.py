"""`shardfs import`."""

from __future__ import annotations

from typing import Any

import click

from shardfs_cli import commits
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.progress import bar


@define(
    "import",
    exits=READS_AND_WRITES,
    examples=('shardfs import ~/runs/42 -m "run 42"', 'shardfs import model --branch release -m "1.0" --tag v1.0'),
)
@click.argument("directory")
@commits.commit_options
@click.pass_obj
def command(context: Context, /, directory: str, **options: Any) -> None:
    """Make the whole content of DIRECTORY the next commit. Files of the work tree stay as they are."""
    request = commits.request(**options)
    with context.repository() as repository:
        with bar(context, "import") as progress:
            id_ = repository.import_directory(file_path(directory), **request, progress=progress)
        commits.tell(context, repository, id_, request["branch"], request["tag"])
