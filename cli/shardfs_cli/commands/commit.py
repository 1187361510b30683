"""`shardfs commit`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardfs.errors import UsageError
from shardfs_cli import commits
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.progress import bar

if TYPE_CHECKING:
    from shardfs.repository import Repository


@define(
    "commit",
    exits=READS_AND_WRITES,
    examples=(
        'shardfs commit -m "initial" --meta epoch=0 --tag v1',
        'shardfs commit -a -m "epoch 10" --meta lr=5e-5 --dataset train=data/train --log-file train.log',
    ),
)
@commits.commit_options
@click.option("-a", "--all", "everything", is_flag=True, help="First add tracked files that changed or are gone.")
@click.pass_obj
def command(context: Context, /, *, everything: bool, **options: Any) -> None:
    """Make a version of what is in staging.

    Staging holds what `shardfs add` put there and what programs wrote below MOUNT/staging. With nothing to commit
    the exit status is 1.
    """
    request = commits.request(**options)
    if everything and request["branch"]:
        msg = "-a adds to the staging area of the current branch; it does not go with --branch"
        raise UsageError(msg)
    with context.repository() as repository:
        with bar(context, "commit") as progress:
            if everything:
                _add_changed(repository)
            id_ = repository.commit(**request, progress=progress)
        commits.tell(context, repository, id_, request["branch"], request["tag"])


def _add_changed(repository: Repository) -> None:
    status, root = repository.status(), repository.root
    if root is not None and status.modified:
        repository.add([root / path for path in status.modified])
    if root is not None and status.missing:
        repository.remove([root / path for path in status.missing], keep=True)
