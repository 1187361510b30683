"""`shardfs cat`."""

from __future__ import annotations

import base64
from typing import Any, Final

import click

from shardfs.errors import UsageError
from shardfs_cli import output
from shardfs_cli.command import READS
from shardfs_cli.command import command as define
from shardfs_cli.context import Context

_BLOCK: Final = 1 << 20  # bytes
_MAX_JSON: Final = 64 << 20  # bytes of a file that is put into a JSON document, which is built in memory


@define("cat", exits=READS, examples=("shardfs cat HEAD:config.json", "shardfs cat v1:weights/model.pt > model.pt"))
@click.argument("where", metavar="REV:PATH")
@click.pass_obj
def command(context: Context, where: str) -> None:
    """Write a file of a revision to standard output.

    PATH starts at the root of the repository; with ./ or ../ in front, at the current directory.
    """
    rev, colon, path = where.partition(":")
    if not colon or not path:
        msg = f"{where!r}: write REVISION:PATH"
        raise UsageError(msg)
    with context.repository() as repository:
        if path.startswith(("./", "../")):
            path = context.path_in(repository, path)
        with repository.read(f"{rev}:{path}") as file:
            if context.output.json:
                id_ = repository.resolve(rev or "HEAD").hex()
                context.output.document({"commit": id_, "path": path, **_content(file.read(_MAX_JSON + 1))})
                return
            while block := file.read(_BLOCK):
                output.write_bytes(block)


def _content(data: bytes) -> dict[str, Any]:
    if len(data) > _MAX_JSON:
        msg = f"a file of more than {output.size(_MAX_JSON)} does not go into JSON; leave out --json"
        raise UsageError(msg)
    try:
        return {"size": len(data), "encoding": "utf-8", "content": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"size": len(data), "encoding": "base64", "content": base64.b64encode(data).decode("ascii")}
