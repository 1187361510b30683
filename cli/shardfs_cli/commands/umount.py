"""`shardfs umount`."""

from __future__ import annotations

import click

from shardfs.errors import ShardfsError
from shardfs_cli import output
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.numbers import Amount


@define("umount", examples=("shardfs umount ./models", "shardfs umount --force ./models"))
@click.argument("mountpoints", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Also when programs use it; their open files fail then.")
@click.option(
    "--timeout",
    type=Amount(min=0, max=3600),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long a daemon may take to end before it is killed.",
)
@click.pass_obj
def command(context: Context, mountpoints: tuple[str, ...], *, force: bool, timeout: float) -> None:
    """End mounts. What was written below staging stays, for the next commit or mount.

    With several, those that can be ended are; the exit status is that of one that cannot.
    """
    from shardfs.mount import session

    points = [file_path(text) for text in mountpoints]
    failed: ShardfsError | None = None
    for point in points:  # one that is busy keeps no other
        try:
            session.unmount(point, force=force, timeout_s=timeout)
        except ShardfsError as error:
            if failed is not None:
                context.output.warn(output.name(str(failed)))
            failed = error
        else:
            context.output.note(f"unmounted {output.name(str(point))}")
    if failed is not None:
        raise failed
    if context.output.json:
        context.output.document({"unmounted": [str(point.absolute()) for point in points]})
