"""`shardfs login`."""

from __future__ import annotations

import sys

import click

from shardfs.errors import UsageError
from shardfs_cli import output
from shardfs_cli.command import command as define
from shardfs_cli.context import Context
from shardfs_cli.exit_status import ExitStatus

_MAX_TOKEN = 64 << 10  # characters of a line of standard input


@define(
    "login",
    exits=(ExitStatus.REMOTE,),
    examples=(
        "shardfs login https://models.example.org/team",
        "shardfs login https://models.example.org < token.txt",
        "shardfs login https://models.example.org --helper 'pass show models'",
    ),
)
@click.argument("url")
@click.option("--user", metavar="NAME", help="Show the token as the password of NAME (basic authentication).")
@click.option("--helper", metavar="COMMAND", help="Keep no token; run COMMAND, which prints it, when it is needed.")
@click.option("--plain-http", is_flag=True, help="The token may be sent over http, where others can read it.")
@click.pass_obj
def command(context: Context, url: str, *, user: str | None, helper: str | None, plain_http: bool) -> None:
    """Keep a token for URL and all below it, in a file that nobody else can read.

    The token is asked for without echo, or read from standard input; it is tried with one request before it is kept.
    """
    from shardfs import login

    token = _token(url) if helper is None else None
    verdict = login.login(url, token, user=user, helper=helper, plain_http=plain_http)
    out, shown = context.output, output.name(url)
    if out.json:
        is_needed = {login.Verdict.TAKEN: True, login.Verdict.NOT_NEEDED: False}.get(verdict)
        out.document({"url": url, "tried": verdict is login.Verdict.TAKEN, "needed": is_needed})
    match verdict:
        case login.Verdict.TAKEN:
            out.note(f"logged in to {shown}")
        case login.Verdict.NOT_NEEDED:
            out.note(f"kept for {shown}; it lets everybody read, with a token or without")
        case login.Verdict.UNKNOWN:
            out.note(f"kept for {shown}; it holds no repository yet, so the token could not be tried")


def _token(url: str) -> str:
    if sys.stdin.isatty():
        token = str(click.prompt(f"Token for {output.name(url)}", hide_input=True, err=True))
    else:
        token = sys.stdin.readline(_MAX_TOKEN)
    if not token.strip():
        msg = "no token was given; type it, or put it on standard input"
        raise UsageError(msg)
    return token.strip()
