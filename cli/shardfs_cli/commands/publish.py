"""`shardfs publish`."""

from __future__ import annotations

from pathlib import Path

import click

from shardfs.errors import UsageError
from shardfs_cli import output
from shardfs_cli.command import READS_AND_WRITES
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.exit_status import ExitStatus
from shardfs_cli.numbers import Amount
from shardfs_cli.progress import bar


@define(
    "publish",
    exits=READS_AND_WRITES,
    examples=(
        "shardfs publish /srv/www/models/demo",
        "shardfs publish /srv/www/models --repository ~/bert --repository ~/llama",
        "shardfs publish --check /srv/www/models/demo",
    ),
)
@click.argument("directory")
@click.option(
    "--repository",
    "repositories",
    multiple=True,
    metavar="PATH",
    help="Publish this one into DIRECTORY/NAME, NAME being that of its directory; may be given several times.",
)
@click.option(
    "--keep",
    type=Amount(min=0, max=1e6),
    default=1.0,
    show_default=True,
    metavar="HOURS",
    help="Leave packs that are not listed any more for so long.",
)
@click.option("--check", is_flag=True, help="Publish nothing; read what was published, every byte.")
@click.pass_context
def command(ctx: click.Context, directory: str, repositories: tuple[str, ...], keep: float, *, check: bool) -> None:
    """Make DIRECTORY a copy of this repository that any web server can serve, for reading.

    Readers find a whole repository there at every moment. Run it again after every change: only new packs are linked
    or copied.
    """
    context = ctx.ensure_object(Context)
    target = file_path(directory)
    places = _places(target, repositories)
    documents = []
    for folder, path in places.items():
        documents.append(_check(context, folder) if check else _publish(context, folder, path, keep * 3600))
    if context.output.json:
        context.output.document({"published": documents})
    if any(document.get("problems") for document in documents):
        ctx.exit(ExitStatus.INTEGRITY)


def _places(target: Path, repositories: tuple[str, ...]) -> dict[Path, Path]:
    """Repositories by the folder that each one is published to."""
    if not repositories:
        return {target: Path.cwd()}
    places: dict[Path, Path] = {}
    for text in repositories:
        path = file_path(text)
        whole = path.resolve()
        name = whole.parent.name if whole.name == ".shardfs" else whole.name
        if not name or target / name in places:
            msg = f"{text} cannot have {target / name} for itself; publish it with a command of its own"
            raise UsageError(msg)
        places[target / name] = path
    return places


def _publish(context: Context, folder: Path, path: Path, keep_s: float) -> dict[str, object]:
    import shardfs

    with shardfs.open(path) as repository, bar(context, "publish") as progress:
        report = repository.publish(folder, keep_s=keep_s, progress=progress)
    if report.changed:
        linked = f", {report.linked} of them linked" if report.linked else ""
        removed = f"; {output.count(report.removed, 'old pack')} deleted" if report.removed else ""
        new = f"{output.count(report.new, 'new pack')} of {output.size(report.new_size)}{linked}{removed}"
        refs = output.count(report.refs, "ref")
        context.output.note(f"published {refs} in {output.name(str(folder))}: {new}")
    else:
        context.output.note(f"{output.name(str(folder))} is up to date")
    return {
        "directory": str(folder),
        "changed": report.changed,
        "refs": report.refs,
        "packs": report.packs,
        "bytes": report.size,
        "new_packs": report.new,
        "new_bytes": report.new_size,
        "linked_packs": report.linked,
        "deleted_packs": report.removed,
    }


def _check(context: Context, folder: Path) -> dict[str, object]:
    from shardfs.repository import Repository

    with bar(context, "check") as progress:
        report = Repository.check_published(folder, progress)
    for problem in report.problems:
        context.output.warn(output.name(problem))
    if not report.problems:
        held = f"{output.count(report.refs, 'ref')}, {output.count(report.packs, 'pack')}, {output.size(report.size)}"
        context.output.note(f"{output.name(str(folder))} is whole: {held}")
    return {
        "directory": str(folder),
        "refs": report.refs,
        "packs": report.packs,
        "bytes": report.size,
        "problems": report.problems,
    }
