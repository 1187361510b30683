"""What `commit` and `import` share: their options, and how a new commit is told."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from shardfs.diff.trees import changes
from shardfs.errors import MalformedError, PathNotFoundError, StoreError, UsageError
from shardfs.formats import canonical
from shardfs.history.revisions import short
from shardfs_cli import describe, output
from shardfs_cli.context import file_path

if TYPE_CHECKING:
    from shardfs.formats.ids import CommitId
    from shardfs.repository import Repository
    from shardfs_cli.context import Context

_MAX_EXACT: Final = 2**53 - 1  # larger integers are not the same in every JSON reader
_MAX_TEXT: Final = 1 << 20  # bytes of a message or metadata file


def commit_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a commit; gather them with `request`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS: Final[tuple[Callable[[Callable[..., Any]], Callable[..., Any]], ...]] = (
    click.option("-m", "--message", "messages", multiple=True, metavar="TEXT", help="Message; repeated: paragraphs."),
    click.option("-F", "--file", "message_file", metavar="FILE", help="Take the message from FILE; - is the input."),
    click.option(
        "--meta", multiple=True, metavar="KEY=VALUE", help="Record a value; numbers, true, false, JSON keep their type."
    ),
    click.option("--meta-file", metavar="FILE", help="Record the members of a JSON object."),
    click.option(
        "--dataset", "datasets", multiple=True, metavar="[NAME=]PATH", help="Record the digest of a file or directory."
    ),
    click.option("--log-file", "logs", multiple=True, metavar="FILE", help="Attach a file, such as a training log."),
    click.option("--author", metavar="TEXT", help='"Name <address>" instead of the configured one.'),
    click.option("--tag", metavar="NAME", help="Also make this tag."),
    click.option("--branch", metavar="NAME", help="Commit the staging area of another branch than the current one."),
    click.option("--allow-empty", is_flag=True, help="Commit even if nothing changed."),
)


def request(
    *,
    messages: tuple[str, ...],
    message_file: str | None,
    meta: tuple[str, ...],
    meta_file: str | None,
    datasets: tuple[str, ...],
    logs: tuple[str, ...],
    **same: Any,
) -> dict[str, Any]:
    """Arguments of `Repository.commit` from the options.

    Raises:
        UsageError: no message, or a value of the wrong form. PathNotFoundError: a file is not there.
    """
    return {
        "message": _message(messages, message_file),
        "meta": _meta(meta, meta_file),
        "datasets": dict(_dataset(text) for text in datasets),
        "logs": [file_path(text) for text in logs],
        **same,
    }


def tell(context: Context, repository: Repository, id_: CommitId, branch: str | None, tag: str | None) -> None:
    """Print a new commit."""
    commit = repository.objects.commit(id_)
    out = context.output
    name = branch or repository.current_branch() or "detached"
    if out.json:
        out.document({**describe.commit_json(id_, commit), "branch": name, "tag": tag})
        return
    old = repository.objects.commit(commit.parents[0]).tree if commit.parents else None
    changed = list(changes(repository.objects, old, commit.tree))
    where = name if old else f"{name}, first commit"
    out.note(f"[{where}] {out.style(short(id_), 'yellow')} {output.name(commit.subject)}")
    out.note(f"  {describe.summary(changed)}" + (f"; tag {tag}" if tag else ""))


def parse_meta(text: str) -> tuple[str, Any]:
    """Key and value of KEY=VALUE.

    Raises:
        UsageError: no "=" or no key.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        msg = f"--meta takes KEY=VALUE, not {text!r}"
        raise UsageError(msg)
    return key.strip(), _typed(value)


def _typed(text: str) -> Any:
    """The JSON value of a text, or the text itself when it is none or would not come back the same."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, int) and abs(value) > _MAX_EXACT:
        return text
    return text if isinstance(value, float) and not math.isfinite(value) else value


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _meta(pairs: tuple[str, ...], file: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(_read(file), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            msg = f"{file} is not JSON: {error}"
            raise UsageError(msg) from error
        if not isinstance(found, dict):
            msg = f"{file} holds no JSON object"
            raise UsageError(msg)
        values.update(found)
    values.update(parse_meta(pair) for pair in pairs)
    try:
        canonical.dumps(values)
    except MalformedError as error:
        msg = f"metadata cannot be stored: {error}"
        raise UsageError(msg) from error
    return values


def _message(messages: tuple[str, ...], file: str | None) -> str:
    if messages and file is not None:
        msg = "give the message with -m or with -F, not both"
        raise UsageError(msg)
    text = "\n\n".join(messages) if file is None else _read(file)
    if not text.strip():
        msg = "a commit needs a message: -m TEXT or -F FILE"
        raise UsageError(msg)
    return text.strip("\n")


def _dataset(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if equals and (not name or not path):
        msg = f"--dataset takes PATH or NAME=PATH, not {text!r}"
        raise UsageError(msg)
    full = file_path(path if equals else text)
    return (name if equals else full.absolute().name), full


def _read(file: str) -> str:
    data: bytes
    try:
        if file == "-":
            data = sys.stdin.buffer.read(_MAX_TEXT + 1)
        else:
            with Path(file).open("rb") as stream:
                data = stream.read(_MAX_TEXT + 1)
    except FileNotFoundError as error:
        msg = f"{file} does not exist"
        raise PathNotFoundError(msg) from error
    except (OSError, ValueError) as error:
        msg = f"{file} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise StoreError(msg) from error
    if len(data) > _MAX_TEXT:
        msg = f"{file} is longer than {_MAX_TEXT} bytes"
        raise UsageError(msg)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        msg = f"{file} is not UTF-8 text"
        raise UsageError(msg) from error
