"""Options of servers that say how they meet the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from shardfs.errors import UsageError
from shardfs_cli.context import file_path
from shardfs_cli.numbers import Amount

if TYPE_CHECKING:
    from shardfs.server.process import Edge

_F = TypeVar("_F", bound=Callable[..., Any])

_COUNT: Final = click.IntRange(0, 1_000_000)
_SECONDS: Final = Amount(min=0, max=86_400)


def size_of(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """Bytes as settings have them: 500K, 10MiB."""
    from shardfs import config

    try:
        return config.parse_size(value)
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error


_OPTIONS: Final = (
    click.option("--tls-cert", metavar="FILE", help="Certificate in PEM form, with those that lead to an authority."),
    click.option("--tls-key", metavar="FILE", help="Its private key. Both are read again when they change."),
    click.option(
        "--max-connections",
        "connections",
        type=_COUNT,
        default=8192,
        show_default=True,
        metavar="N",
        help="Most open connections; 0 here and below: no limit.",
    ),
    click.option(
        "--max-connections-per-address",
        "connections_per_address",
        type=_COUNT,
        default=4096,
        show_default=True,
        metavar="N",
        help="Most of them from one address.",
    ),
    click.option(
        "--max-rate",
        "rate",
        type=Amount(min=0, max=1e6),
        default=1000.0,
        show_default=True,
        metavar="N",
        help="Most requests per second of one token, or of one address without.",
    ),
    click.option(
        "--max-speed",
        "speed",
        callback=size_of,
        default="0",
        show_default=True,
        metavar="SIZE",
        help="Most bytes per second that one address may read.",
    ),
    click.option(
        "--max-uploads",
        "uploads",
        type=_COUNT,
        default=64,
        show_default=True,
        metavar="N",
        help="Most packs that are received at the same time, and most questions for ids.",
    ),
    click.option(
        "--head-timeout",
        "head_s",
        type=_SECONDS,
        default=20.0,
        show_default=True,
        metavar="SECONDS",
        help="Longest time for the head of a request.",
    ),
    click.option(
        "--min-speed",
        "min_speed",
        callback=size_of,
        default="4K",
        show_default=True,
        metavar="SIZE",
        help="Fewest bytes per second that a client must send of a body or take of an answer.",
    ),
    click.option(
        "--slow-after",
        "slow_s",
        type=_SECONDS,
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="Time over which that speed is measured.",
    ),
    click.option(
        "--grace",
        "grace_s",
        type=_SECONDS,
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="Time for requests in progress to end after SIGTERM.",
    ),
    click.option("--access-log", metavar="FILE", help="Append a line of JSON for each request; '-' prints them."),
)


def edge_options(function: _F) -> _F:
    """Give a command the options; it gets them by keyword, for `edge_of`."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def edge_of(options: Mapping[str, Any]) -> Edge:
    """What the options say.

    Raises:
        click.UsageError: a certificate without a key or a key without a certificate.
    """
    from shardfs.server.limits import Limits
    from shardfs.server.process import Edge

    limits = dict(options)
    chain, key = limits.pop("tls_cert"), limits.pop("tls_key")
    if (chain is None) is not (key is None):
        raise click.UsageError("--tls-cert and --tls-key belong together: give both")
    log, grace_s = limits.pop("access_log"), limits.pop("grace_s")
    return Edge(
        certificate=None if chain is None else (file_path(chain), file_path(key)),
        limits=Limits(**limits),
        grace_s=grace_s,
        access_log=log if log in (None, "-") else str(file_path(log)),
    )
