"""Commits, entries and changes as JSON values and as lines for people. The JSON is in docs/reference/json.md."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from shardfs.formats.ref import BRANCHES, REMOTES, TAGS
from shardfs.formats.tree import DirEntry, FileEntry, TreeEntry
from shardfs.history.paths import show
from shardfs.history.revisions import short
from shardfs_cli import output

if TYPE_CHECKING:
    from shardfs.diff.trees import Change
    from shardfs.formats.commit import Commit
    from shardfs.repository import Repository
    from shardfs_cli.output import Output

_MARKS = {"added": ("A", "green"), "modified": ("M", "yellow"), "deleted": ("D", "red")}


def commit_json(id_: bytes, commit: Commit) -> dict[str, Any]:
    """A commit."""
    return {
        "commit": id_.hex(),
        "tree": commit.tree.hex(),
        "parents": [parent.hex() for parent in commit.parents],
        "author": commit.author,
        "time": output.time(commit.time_us),
        "message": commit.message,
        "meta": commit.meta,
        "auto": commit.auto,
        "attachments": commit.attachments.hex() if commit.attachments else None,
    }


def entry_json(entry: TreeEntry) -> dict[str, Any]:
    """A file, directory or link without its name; members that its kind does not have are null."""
    value: dict[str, Any] = {"kind": kind_of(entry), "size": None, "executable": None, "target": None, "id": None}
    if isinstance(entry, FileEntry):
        content = entry.manifest or entry.chunk
        value |= {"size": entry.size, "executable": entry.executable, "id": content.hex() if content else None}
    elif isinstance(entry, DirEntry):
        value["id"] = entry.tree.hex()
    else:
        value["target"] = os.fsdecode(entry.target)
    return value


def kind_of(entry: TreeEntry) -> str:
    """What an entry is: "file", "dir" or "link"."""
    return "file" if isinstance(entry, FileEntry) else "dir" if isinstance(entry, DirEntry) else "link"


def change_json(change: Change) -> dict[str, Any]:
    """A change with both of its sides."""
    return {
        "path": show(change.path),
        "change": str(change.kind),
        "old": None if change.old is None else entry_json(change.old),
        "new": None if change.new is None else entry_json(change.new),
    }


def change_row(change: Change, out: Output) -> list[str]:
    """A change as cells of a table: mark, path, sizes."""
    old, new = (_size(entry) for entry in (change.old, change.new))
    return [
        mark(str(change.kind), out),
        output.name(show(change.path)),
        f"{old} -> {new}" if old and new else new or old,
    ]


def mark(kind: str, out: Output) -> str:
    """One letter for "added", "modified" or "deleted"."""
    letter, color = _MARKS[kind]
    return out.style(letter, color)


def names_of_commits(repository: Repository) -> dict[bytes, list[str]]:
    """What people call commits: "HEAD -> main", "tag: v1", "origin/main"."""
    head = repository.head()
    names: dict[bytes, list[str]] = {}
    if head.branch is None and head.commit is not None:
        names.setdefault(head.commit, []).append("HEAD")
    for full, commit in repository.store.refs.list().items():
        if full == head.branch:
            names.setdefault(commit, []).insert(0, f"HEAD -> {full.removeprefix(BRANCHES)}")
        else:
            text = full.removeprefix(BRANCHES).removeprefix(REMOTES)
            names.setdefault(commit, []).append(f"tag: {full.removeprefix(TAGS)}" if full.startswith(TAGS) else text)
    return names


def commit_lines(id_: bytes, commit: Commit, names: list[str], out: Output) -> list[str]:
    """A commit as `log` and `show` print it."""
    labels = f" ({', '.join(names)})" if names else ""
    lines = [out.style(f"commit {id_.hex()}", "yellow") + out.style(labels, "cyan") * bool(labels)]
    if len(commit.parents) > 1:
        lines.append("Merge:  " + " ".join(short(parent) for parent in commit.parents))
    lines.append(f"Author: {output.name(commit.author)}")
    lines.append(f"Date:   {output.local_time(commit.time_us)}")
    if commit.meta:
        lines.append("Meta:   " + output.name(" ".join(f"{k}={_value(v)}" for k, v in commit.meta.items())))
    lines.append("")
    lines += [f"    {line}".rstrip() for line in output.paragraph(commit.message).rstrip().split("\n")]
    return lines


def commit_line(id_: bytes, commit: Commit, names: list[str], out: Output) -> str:
    """A commit as `log --oneline` prints it."""
    labels = out.style(f" ({', '.join(names)})", "cyan") if names else ""
    return f"{out.style(short(id_), 'yellow')}{labels} {output.name(commit.subject)}"


def summary(changes: list[Change]) -> str:
    """Changes in one line: "2 files changed: 1 added, 1 modified"."""
    kinds = [str(change.kind) for change in changes]
    parts = [f"{kinds.count(kind)} {kind}" for kind in _MARKS if kind in kinds]
    return f"{output.count(len(changes), 'file')} changed: {', '.join(parts)}" if parts else "no changes"


def _value(value: object) -> str:
    import json

    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _size(entry: TreeEntry | None) -> str:
    if isinstance(entry, FileEntry):
        return output.size(entry.size)
    return "" if entry is None else kind_of(entry)
