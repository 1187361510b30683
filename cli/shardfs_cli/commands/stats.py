"""`shardfs stats`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from shardfs.history.revisions import short
from shardfs_cli import output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context

if TYPE_CHECKING:
    from shardfs.maintenance.stats import Stats
    from shardfs.repository import Repository


@define("stats", exits=READS, examples=("shardfs stats", "shardfs stats main", "shardfs stats --json"))
@click.argument("rev", required=False)
@click.pass_obj
def command(context: Context, rev: str | None) -> None:
    """Show how many bytes the versions have and how many are stored, for all of them or those up to REV."""
    out = context.output
    with context.repository() as repository:
        found = repository.stats() if rev is None else _up_to(repository, rev)
    if out.json:
        out.document(
            {
                "logical_bytes": found.logical_bytes,
                "stored_bytes": found.stored_bytes,
                "commits": found.commits,
                "trees": found.trees,
                "manifests": found.manifests,
                "chunks": found.chunks,
                "remote_chunks": found.remote_chunks,
                "files": found.files,
                "packs": found.packs,
                "versions": [
                    {
                        "commit": version.id.hex(),
                        "subject": version.subject,
                        "files": version.files,
                        "logical_bytes": version.logical_bytes,
                        "new_bytes": version.new_bytes,
                    }
                    for version in found.versions
                ],
            }
        )
        return
    out.lines(_lines(found))


def _up_to(repository: Repository, rev: str) -> Stats:
    from shardfs.maintenance import stats

    found = stats.stats(repository.store, repository.objects, [repository.resolve(rev)])
    return replace(found, stored_bytes=sum(version.new_bytes for version in found.versions))


def _lines(found: Stats) -> list[str]:
    rows = [("version", "files", "logical", "new", "")]
    rows += [
        (short(v.id), str(v.files), output.size(v.logical_bytes), output.size(v.new_bytes), output.name(v.subject))
        for v in found.versions
    ]
    ratio = ""
    if found.stored_bytes and not found.remote_chunks:
        ratio = f", {found.logical_bytes / found.stored_bytes:.1f} times smaller"
    counts = ", ".join(
        output.count(number, noun)
        for number, noun in ((found.commits, "commit"), (found.chunks, "chunk"), (found.packs, "pack"))
    )
    elsewhere = f", {found.remote_chunks} of the chunks only at a remote" if found.remote_chunks else ""
    logical, stored = output.size(found.logical_bytes), output.size(found.stored_bytes)
    summary = f"{logical} in all versions, {stored} stored{ratio}; {counts}{elsewhere}"
    return [*output.table(rows, right=(1, 2, 3)), summary]
