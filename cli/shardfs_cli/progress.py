"""Progress bars: on standard error, only on a terminal, never with --json or --quiet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shardfs_cli import output

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
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Pace(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(pace(int(task.completed), None if task.total is None else int(task.total), task.speed))

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), Pace())
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(title, total=None)

        def move(done: int, total: int | None, what: str) -> None:
            shown.update(task, completed=done, total=total, description=what or title)

        yield move


def pace(done: int, total: int | None, speed: float | None) -> str:
    """How far work is, how fast, and how long it will take: "3.2 of 9.1 GB, 45.0 MB/s, 2 min left".

    Args:
        done: bytes.
        total: bytes in all; None when unknown.
        speed: bytes per second; None or 0 when unknown.
    """
    parts = [output.size(done)]
    if total is not None:
        number, unit = output.size(total).split(" ")
        parts = [f"{parts[0].removesuffix(f' {unit}')} of {number} {unit}"]
    if speed:
        parts.append(f"{output.size(int(speed))}/s")
        if total is not None and done < total:
            parts.append(f"{output.duration((total - done) / speed)} left")
    return ", ".join(parts)
