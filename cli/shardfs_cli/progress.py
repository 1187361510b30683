"""Progress bars: on standard error, only on a terminal, never with --json or --quiet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardfs.progress import Progress
    from shardfs_cli.context import Context


@contextmanager
def bar(context: Context, title: str) -> Iterator[Progress | None]:
    """A progress bar for the block; gives the callback that moves it, or None when none is wanted."""
    if context.output.json or context.output.quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)

        def move(done: int, total: int | None, what: str) -> None:
            shown.update(task, completed=done, total=total, description=what or title)

        yield move
