"""`shardfs serve`."""

from __future__ import annotations

import click

from shardfs_cli import output
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path


@define(
    "serve",
    examples=(
        "shardfs serve --root /srv/models",
        "shardfs serve --root /srv/models --listen 127.0.0.1:0 --read-only --anonymous read",
    ),
)
@click.option("--root", default=".", metavar="DIR", help="Directory of all repositories; made when missing.")
@click.option(
    "--listen",
    default="127.0.0.1:8750",
    show_default=True,
    metavar="HOST:PORT",
    help="Address; port 0 takes a free one.",
)
@click.option("--read-only", is_flag=True, help="Refuse everything that changes something.")
@click.option("--no-create", is_flag=True, help="Do not make a repository when something is pushed to a new name.")
@click.option(
    "--anonymous",
    type=click.Choice(("none", "read", "write", "admin")),
    default="none",
    show_default=True,
    help="What those may do who show no token.",
)
@click.option(
    "--trust-proxy",
    is_flag=True,
    help="Believe a web server on this machine about where requests come from (X-Forwarded-For).",
)
@click.pass_obj
def command(
    context: Context, root: str, listen: str, anonymous: str, *, read_only: bool, no_create: bool, trust_proxy: bool
) -> None:
    """Serve the repositories below DIR over HTTP until Ctrl-C or SIGTERM.

    The repository in DIR/NAME has the address http://HOST:PORT/NAME. Whoever asks needs a token (`shardfs token
    create`), unless --anonymous allows it to everybody: "read"; "write", which adds; or "admin", which may lose
    commits too.
    """
    folder = file_path(root)
    host, port = _address(listen)
    from shardfs.server import app
    from shardfs.server.access import Access
    from shardfs.server.tokens import Permission

    def announce(line: str) -> None:
        if context.output.json:
            context.output.document({"url": line.rsplit(" at ", 1)[-1], "root": str(folder.absolute())})
        else:
            context.output.line(output.name(line))
        output.flush()

    app.run(
        folder,
        host,
        port,
        read_only=read_only,
        create=not no_create,
        access=Access(folder, anonymous=Permission[anonymous.upper()], trust_proxy=trust_proxy),
        announce=announce,
        warn=context.output.warn,
    )


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        msg = f"{text!r}: write HOST:PORT, such as 127.0.0.1:8750 or [::1]:8750"
        raise click.BadParameter(msg, param_hint="--listen")
    return host.removeprefix("[").removesuffix("]"), int(port)
