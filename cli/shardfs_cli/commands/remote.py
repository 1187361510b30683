"""`shardfs remote`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.command import OPENS, READS_AND_WRITES, WRITES, group
from shardfs_cli.context import Context, file_path
from shardfs_cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from shardfs.sharing import BranchState, RemoteState


@group(
    "remote",
    exits=WRITES,
    examples=("shardfs remote add origin http://127.0.0.1:8750/demo", "shardfs remote list"),
    invoke_without_command=True,
)
@click.pass_context
def command(ctx: click.Context) -> None:
    """List and change remotes: other places that hold the same history."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_remotes)


@command.command(
    "add",
    exits=WRITES,
    examples=(
        "shardfs remote add backup /mnt/backup/models",
        "shardfs remote add bucket s3://my-models/team/demo",
        "shardfs remote add lan http://10.0.0.5:8750/demo --prefer",
    ),
)
@click.argument("name")
@click.argument("url")
@click.option("--prefer", is_flag=True, help="Ask it before all others.")
@click.pass_obj
def add(context: Context, name: str, url: str, *, prefer: bool) -> None:
    """Remember URL (http, https, s3, gs, az or a directory) as remote NAME."""
    with context.repository() as repository:
        repository.add_remote(name, absolute(url))
        if prefer:
            repository.prefer_remote(name)
        found = repository.remotes()[name]
    if context.output.json:
        context.output.document({"name": name, "url": found})
    context.output.note(f"remote {name} is {output.name(found)}")


@command.command("rm", exits=WRITES, examples=("shardfs remote rm backup",))
@click.argument("name")
@click.pass_obj
def remove(context: Context, name: str) -> None:
    """Forget remote NAME and what was known of its branches. The remote itself stays as it is."""
    with context.repository() as repository:
        url = repository.remotes().get(name)
        repository.remove_remote(name)
    if context.output.json:
        context.output.document({"name": name, "url": url})
    context.output.note(f"forgot remote {name}")


@command.command("list", exits=OPENS, examples=("shardfs remote list --json",))
@click.pass_obj
def list_remotes(context: Context) -> None:
    """List remotes in the order in which they are asked."""
    with context.repository() as repository:
        remotes = repository.remotes()
    if context.output.json:
        context.output.document([{"name": name, "url": url} for name, url in remotes.items()])
        return
    context.output.lines(output.table([(name, output.name(url)) for name, url in remotes.items()]))


@command.command("set-url", exits=WRITES, examples=("shardfs remote set-url origin https://models.example.org/demo",))
@click.argument("name")
@click.argument("url")
@click.pass_obj
def set_url(context: Context, name: str, url: str) -> None:
    """Say that remote NAME is at URL now."""
    with context.repository() as repository:
        repository.set_remote_url(name, absolute(url))
        found = repository.remotes()[name]
    if context.output.json:
        context.output.document({"name": name, "url": found})
    context.output.note(f"remote {name} is {output.name(found)}")


@command.command("rename", exits=WRITES, examples=("shardfs remote rename origin old",))
@click.argument("old")
@click.argument("new")
@click.pass_obj
def rename(context: Context, old: str, new: str) -> None:
    """Call remote OLD from now on NEW, its branches included."""
    with context.repository() as repository:
        repository.rename_remote(old, new)
        found = repository.remotes()[new]
    if context.output.json:
        context.output.document({"name": new, "url": found})
    context.output.note(f"remote {old} is {new} now")


@command.command("prefer", exits=WRITES, examples=("shardfs remote prefer lan",))
@click.argument("name")
@click.pass_obj
def prefer(context: Context, name: str) -> None:
    """Ask remote NAME before all others."""
    with context.repository() as repository:
        repository.prefer_remote(name)
        order = list(repository.remotes())
    if context.output.json:
        context.output.document({"order": order})
    context.output.note(f"remotes are asked in this order: {', '.join(order)}")


@command.command("show", exits=READS_AND_WRITES, examples=("shardfs remote show", "shardfs remote show backup --json"))
@click.argument("name", required=False)
@click.pass_context
def show(ctx: click.Context, name: str | None) -> None:
    """Ask remote NAME (default: the branch's, else origin) what it has, and compare it with what is here."""
    context = ctx.ensure_object(Context)
    with context.repository() as repository:
        state = repository.remote_state(name or repository.upstream())
    if context.output.json:
        context.output.document(_state_json(state))
    else:
        context.output.lines(_state_lines(state))
    if state.problem is not None:
        ctx.exit(ExitStatus.REMOTE)


def _state_json(state: RemoteState) -> dict[str, Any]:
    found = state._asdict()
    found["branches"] = [
        {
            **branch._asdict(),
            "there": branch.there.hex() if branch.there else None,
            "here": branch.here.hex() if branch.here else None,
        }
        for branch in state.branches
    ]
    return found


def _state_lines(state: RemoteState) -> list[str]:
    lines = [f"{state.name}  {output.name(state.url)}"]
    if state.problem is not None:
        return [*lines, f"  cannot be used: {output.name(state.problem)}"]
    news = f", {state.unknown_packs} not known here yet" if state.unknown_packs else ""
    lines.append(f"  answered in {state.seconds * 1000:.0f} ms")
    lines.append(f"  {output.count(state.packs, 'pack')}, {output.size(state.bytes)}{news}")
    lines.append(f"  {output.count(len(state.branches), 'branch')}, {output.count(state.tags, 'tag')}")
    rows = [(output.name(b.name), short(b.there) if b.there else "gone", _standing(b)) for b in state.branches]
    return lines + output.table(rows, indent="    ")


def _standing(branch: BranchState) -> str:
    if branch.there is None:
        return "`shardfs fetch --prune` forgets it"
    if branch.here is None:
        return "not a branch here" if branch.is_known else "new, `shardfs fetch` follows it"
    if branch.here == branch.there:
        return "the same here"
    if branch.ahead is None or branch.behind is None:
        return "moved, `shardfs fetch` tells how far"
    counts = ((branch.ahead, "ahead"), (branch.behind, "behind"))
    return "here " + ", ".join(f"{output.count(count, 'commit')} {word}" for count, word in counts if count)


def absolute(url: str) -> str:
    """A URL as it is; a directory, which has no scheme, from the root: it is used from other directories later."""
    if "://" in url:
        return url
    return os.path.abspath(file_path(url).expanduser())  # noqa: PTH100 - without "..", and links stay what they are
