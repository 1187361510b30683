"""`shardfs log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shardfs.errors import RevisionNotFoundError, UsageError
from shardfs_cli import describe
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context

if TYPE_CHECKING:
    from shardfs.repository import Repository


@define(
    "log",
    exits=READS,
    examples=("shardfs log -n 5", "shardfs log --oneline v1", "shardfs log main weights/model.pt"),
)
@click.argument("where", nargs=-1, metavar="[REV] [PATH]")
@click.option("-n", "--max-count", "limit", type=click.IntRange(min=0), metavar="N", help="Show at most N commits.")
@click.option("--oneline", is_flag=True, help="One line per commit.")
@click.option("--first-parent", is_flag=True, help="Follow only the first parent of each commit.")
@click.pass_obj
def command(context: Context, where: tuple[str, ...], *, limit: int | None, oneline: bool, first_parent: bool) -> None:
    """Show commits, newest first: those of REV (default: HEAD) that changed PATH (default: all).

    One argument that names no revision is a path.
    """
    out = context.output
    with context.repository() as repository:
        rev, path = _rev_and_path(context, repository, where)
        if not where and repository.head_commit() is None:
            if out.json:
                out.document([])
            out.note("no commits yet")
            return
        found = repository.log(rev, limit=limit, path=path, first_parent=first_parent)
        if out.json:
            out.document([describe.commit_json(id_, commit) for id_, commit in found])
            return
        names = describe.names_of_commits(repository)
        for number, (id_, commit) in enumerate(found):
            if oneline:
                out.line(describe.commit_line(id_, commit, names.get(id_, []), out))
                continue
            if number:
                out.line()
            out.lines(describe.commit_lines(id_, commit, names.get(id_, []), out))


def _rev_and_path(context: Context, repository: Repository, where: tuple[str, ...]) -> tuple[str, str]:
    if len(where) > 2:
        msg = "log takes one revision and one path"
        raise UsageError(msg)
    if len(where) == 2:
        return where[0], context.path_in(repository, where[1])
    if not where:
        return "HEAD", ""
    try:
        repository.resolve(where[0])
    except RevisionNotFoundError:
        path = context.path_in(repository, where[0])
        if next(repository.log("HEAD", limit=1, path=path), None) is None:
            raise
        return "HEAD", path
    return where[0], ""
