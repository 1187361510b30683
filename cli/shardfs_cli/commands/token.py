"""`shardfs token`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import click

from shardfs_cli import output
from shardfs_cli.command import group
from shardfs_cli.context import Context, file_path
from shardfs_cli.exit_status import ExitStatus

if TYPE_CHECKING:
    from shardfs.server.tokens import Token, TokenStore

_EXITS: Final = (ExitStatus.INTEGRITY, ExitStatus.LOCKED, ExitStatus.CONFLICT)
_LIFETIME = re.compile(r"(\d{1,6})(min|h|d)")
_SECONDS: Final = {"min": 60, "h": 3600, "d": 86400}
_ALL: Final = "all"

_root = click.option("--root", default=".", metavar="DIR", help="Directory of all repositories of the server.")


@group(
    "token",
    exits=_EXITS,
    examples=(
        "shardfs token create --root /srv/models --name trainer --repository team/llm --permission write",
        "shardfs token list --root /srv/models",
        "shardfs token revoke --root /srv/models trainer",
    ),
)
def command() -> None:
    """Make, list and revoke what opens a server. Run where the server's repositories are; it need not be stopped."""


@command.command(
    "create",
    exits=_EXITS,
    examples=(
        "shardfs token create --root /srv/models --name trainer --repository team/llm --permission write",
        "shardfs token create --root /srv/models --name readers --repository 'public/*' --expires 30d",
    ),
)
@_root
@click.option("--name", required=True, help="What people call it; reflogs and the audit log have it.")
@click.option(
    "--repository",
    "repositories",
    multiple=True,
    required=True,
    metavar="NAME",
    help="What it opens: a repository, all below a name (team/*), or all. May be repeated.",
)
@click.option(
    "--permission",
    type=click.Choice(("read", "write", "admin")),
    default="read",
    show_default=True,
    help="What it allows: write adds, admin may lose commits too.",
)
@click.option("--expires", metavar="TIME", help="How long it is good: 30d, 12h or 90min. By default for ever.")
@click.pass_obj
def create(
    context: Context, root: str, name: str, repositories: tuple[str, ...], permission: str, expires: str | None
) -> None:
    """Make a token and print it, this once: the server keeps a digest of it alone."""
    from shardfs.server.patterns import EVERY
    from shardfs.server.tokens import Permission

    lifetime_s = None if expires is None else _lifetime_s(expires)
    patterns = tuple(EVERY if text == _ALL else text for text in repositories)
    token, text = _tokens(root).create(name, patterns, Permission[permission.upper()], lifetime_s)
    if context.output.json:
        context.output.document({**_document(token), "token": text})
        return
    context.output.line(text)


@command.command("list", exits=_EXITS, examples=("shardfs token list --root /srv/models --json",))
@_root
@click.pass_obj
def list_tokens(context: Context, root: str) -> None:
    """List tokens: name, id, permission, repositories, and until when they are good."""
    tokens = _tokens(root).list()
    if context.output.json:
        context.output.document([_document(token) for token in tokens])
        return
    rows = [
        (token.name, token.id, token.permission.name.lower(), " ".join(_shown(token)), _until(token))
        for token in tokens
    ]
    context.output.lines(output.table(rows))


@command.command("revoke", exits=_EXITS, examples=("shardfs token revoke --root /srv/models trainer",))
@_root
@click.argument("token")
@click.pass_obj
def revoke(context: Context, root: str, token: str) -> None:
    """Forget TOKEN, a name or an id. A running server refuses it within a second."""
    found = _tokens(root).revoke(token)
    if context.output.json:
        context.output.document(_document(found))
    context.output.note(f"revoked {found.name} ({found.id})")


def _tokens(root: str) -> TokenStore:
    from shardfs.server.folder import ServerFolder
    from shardfs.server.tokens import TokenStore

    return TokenStore(ServerFolder(file_path(root)))


def _lifetime_s(text: str) -> int:
    found = _LIFETIME.fullmatch(text)
    if found is None or int(found[1]) == 0:
        msg = f"{text!r}: write a number of days, hours or minutes, such as 30d, 12h or 90min"
        raise click.BadParameter(msg, param_hint="--expires")
    return int(found[1]) * _SECONDS[found[2]]


def _shown(token: Token) -> list[str]:
    return [_ALL if pattern == "*" else pattern for pattern in token.repositories]


def _until(token: Token) -> str:
    if token.expires is None:
        return "for ever"
    return f"{'expired' if token.is_expired() else 'until'} {output.local_time(token.expires * 1_000_000)}"


def _document(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "id": token.id,
        "permission": token.permission.name.lower(),
        "repositories": _shown(token),
        "created": output.time(token.created * 1_000_000),
        "expires": None if token.expires is None else output.time(token.expires * 1_000_000),
    }
