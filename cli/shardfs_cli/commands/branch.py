"""`shardfs branch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardfs.errors import UsageError
from shardfs.history.revisions import short
from shardfs_cli.command import WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context

if TYPE_CHECKING:
    from shardfs.repository import Repository


@define(
    "branch",
    exits=WRITES,
    examples=("shardfs branch", "shardfs branch experiment v1", "shardfs branch -d experiment"),
)
@click.argument("name", required=False)
@click.argument("rev", required=False)
@click.option("-d", "--delete", is_flag=True, help="Delete branch NAME if its commits are on another branch.")
@click.option("-D", "force_delete", is_flag=True, help="Delete branch NAME in any case; the reflog keeps its commits.")
@click.option("-a", "--all", "everything", is_flag=True, help="List branches of remotes too.")
@click.pass_obj
def command(
    context: Context, name: str | None, rev: str | None, *, delete: bool, force_delete: bool, everything: bool
) -> None:
    """List branches; or make branch NAME at REV (default: HEAD); or delete one."""
    out = context.output
    deletes = delete or force_delete
    if (deletes and (name is None or rev is not None)) or (everything and name is not None):
        msg = "-d and -D take one branch; -a takes none"
        raise UsageError(msg)
    with context.repository() as repository:
        if name is None:
            _list(context, repository, everything=everything)
            return
        if deletes:
            commit = repository.delete_branch(name, force=force_delete)
        else:
            commit = repository.create_branch(name, rev or "HEAD")
    if out.json:
        out.document({"name": name, "commit": commit.hex(), "deleted": deletes})
    out.note(f"deleted branch {name} (was {short(commit)})" if deletes else f"branch {name} at {short(commit)}")


def _list(context: Context, repository: Repository, *, everything: bool) -> None:
    out = context.output
    current = repository.current_branch()
    found: dict[str, bytes | None] = {**repository.branches()}
    if current is not None:
        found.setdefault(current, None)
    rows: list[dict[str, Any]] = [_row(name, found[name], current=name == current) for name in sorted(found)]
    if everything:
        rows += [_row(name, commit, remote=True) for name, commit in repository.remote_branches().items()]
    if out.json:
        out.document(rows)
        return
    widest = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        name = row["name"].ljust(widest)
        id_ = row["commit"][:12] if row["commit"] else "no commits yet"
        out.line(f"* {out.style(name, 'green')}  {id_}" if row["current"] else f"  {name}  {id_}")


def _row(name: str, commit: bytes | None, *, current: bool = False, remote: bool = False) -> dict[str, Any]:
    return {"name": name, "commit": commit.hex() if commit else None, "current": current, "remote": remote}
