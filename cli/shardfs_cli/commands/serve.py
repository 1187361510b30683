"""`shardfs serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from shardfs_cli import output
from shardfs_cli.command import command as define
from shardfs_cli.context import Context, file_path
from shardfs_cli.edge import edge_of, edge_options, size_of

if TYPE_CHECKING:
    from shardfs.server.peer_app import Upstream


@define(
    "serve",
    examples=(
        "shardfs serve --root /srv/models",
        "shardfs serve --root /srv/models --listen 127.0.0.1:0 --read-only --anonymous read",
        "shardfs serve --root /srv/models --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem",
        "shardfs serve --cache https://models.example.org --listen 0.0.0.0:8750 --anonymous read",
    ),
)
@click.option("--root", metavar="DIR", help="Directory of all repositories (default: here); made when missing.")
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
@click.option(
    "--host-name",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="A name by which those without a token may ask, where only this machine can; may be repeated.",
)
@click.option(
    "--cache",
    metavar="URL",
    help="Serve what is below another server, bucket or directory, and keep what passes through on this disk.",
)
@click.option(
    "--cache-dir", metavar="DIR", help="Where; made when missing. By default served/ in the user's cache directory."
)
@click.option(
    "--cache-size", default="50G", show_default=True, metavar="SIZE", callback=size_of, help="Most bytes to keep there."
)
@edge_options
@click.pass_obj
def command(  # noqa: PLR0913 - options
    context: Context,
    /,
    root: str | None,
    listen: str,
    anonymous: str,
    *,
    read_only: bool,
    no_create: bool,
    trust_proxy: bool,
    host_names: tuple[str, ...],
    **more: Any,
) -> None:
    """Serve the repositories below DIR over HTTP until Ctrl-C or SIGTERM.

    The repository in DIR/NAME has the address http://HOST:PORT/NAME. Whoever asks needs a token (`shardfs token
    create`), unless --anonymous allows it to everybody: "read"; "write", which adds; or "admin", which may lose
    commits too.

    With --cache URL the repositories are those below URL, for reading only: a cache for the machines around it.
    """
    host, port = _address(listen)
    from shardfs.server import app, peer_app
    from shardfs.server.access import Access
    from shardfs.server.hosts import OwnNames
    from shardfs.server.process import is_loopback
    from shardfs.server.tokens import Permission

    upstream = _upstream(more)
    if upstream is not None and root is not None:
        msg = "--cache and --root exclude each other; --cache-dir says where a cache keeps what came"
        raise click.UsageError(msg)
    folder = file_path(root or ".") if upstream is None else upstream.folder
    names = OwnNames(host_names) if is_loopback(host) else None
    access = Access(folder, anonymous=Permission[anonymous.upper()], trust_proxy=trust_proxy, names=names)

    def announce(line: str) -> None:
        if context.output.json:
            context.output.document({"url": line.rsplit(" at ", 1)[-1], "root": str(folder.absolute())})
        else:
            context.output.line(output.name(line))
        output.flush()

    warn = context.output.warn
    if upstream is not None:
        peer_app.run(upstream, (host, port), access=access, edge=edge_of(more), announce=announce, warn=warn)
        return
    app.run(
        folder,
        host,
        port,
        read_only=read_only,
        create=not no_create,
        access=access,
        edge=edge_of(more),
        announce=announce,
        warn=warn,
    )


def _upstream(options: dict[str, Any]) -> Upstream | None:
    """What --cache names, and where what comes from there is kept; takes these options out of all others."""
    from shardfs.server import peer_app

    url, folder, size = (options.pop(name) for name in ("cache", "cache_dir", "cache_size"))
    if url is None:
        if folder is not None:
            msg = "--cache-dir is where --cache keeps what came; say of what: --cache URL"
            raise click.UsageError(msg)
        return None
    return peer_app.Upstream(url, peer_app.default_folder() if folder is None else file_path(folder), size)


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        msg = f"{text!r}: write HOST:PORT, such as 127.0.0.1:8750 or [::1]:8750"
        raise click.BadParameter(msg, param_hint="--listen")
    return host.removeprefix("[").removesuffix("]"), int(port)
