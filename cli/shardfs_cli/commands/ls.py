"""`shardfs ls`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, TreeEntry
from shardfs.history.paths import parse, show
from shardfs_cli import describe, output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context

if TYPE_CHECKING:
    from shardfs.history.paths import Path
    from shardfs.repository import Repository


@define("ls", exits=READS, examples=("shardfs ls", "shardfs ls v1 weights -l", "shardfs ls -R HEAD~2"))
@click.argument("rev", default="HEAD")
@click.argument("path", required=False)
@click.option("-l", "--long", is_flag=True, help="Also kind, size and link target.")
@click.option("-R", "--recursive", is_flag=True, help="Everything below PATH.")
@click.pass_obj
def command(context: Context, rev: str, path: str | None, *, long: bool, recursive: bool) -> None:
    """List files of revision REV (default: HEAD) in directory PATH (default: all of it)."""
    out = context.output
    with context.repository() as repository:
        below = "" if path is None else context.path_in(repository, path)
        found = _entries(repository, rev, below, recursive=recursive)
    if out.json:
        out.document([{"path": show(names), **describe.entry_json(entry)} for names, entry in found])
        return
    depth = len(parse(below)) if len(found) != 1 or found[0][0] != parse(below) else 0
    rows = [(_mode(entry), _size(entry), _name(names[depth:], entry, long=long)) for names, entry in found]
    out.lines(output.table(rows, right=(1,)) if long else [row[2] for row in rows])


def _entries(repository: Repository, rev: str, path: str, *, recursive: bool) -> list[tuple[Path, TreeEntry]]:
    if recursive:
        return list(repository.walk(rev, path))
    parent = parse(path)
    if not isinstance(repository.entry(rev, path), DirEntry):
        return [(parent, repository.entry(rev, path))]
    return [((*parent, entry.name), entry) for entry in repository.entries(rev, path)]


def _mode(entry: TreeEntry) -> str:
    if isinstance(entry, FileEntry):
        return "-rwx" if entry.executable else "-rw-"
    return "drwx" if isinstance(entry, DirEntry) else "lrwx"


def _size(entry: TreeEntry) -> str:
    return output.size(entry.size) if isinstance(entry, FileEntry) else ""


def _name(names: Path, entry: TreeEntry, *, long: bool) -> str:
    text = output.name(show(names))
    if isinstance(entry, LinkEntry) and long:
        return f"{text} -> {output.name(os.fsdecode(entry.target))}"
    return f"{text}/" if isinstance(entry, DirEntry) else text
