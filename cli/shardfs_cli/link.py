"""Options about the link to a remote. They outweigh settings by the environment, which a daemon inherits."""

from __future__ import annotations

import os
from typing import Final

import click

from shardfs import config
from shardfs.errors import UsageError


def limit_speed(rate: str | None) -> None:
    """Let this program, and daemons that it starts, send and receive no more than so many bytes per second."""
    if rate is not None:
        os.environ["SHARDFS_BWLIMIT"] = rate


def size(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The text of a size, for `callback` of an option.

    Raises:
        click.BadParameter: it is none.
    """
    try:
        config.parse_size(value or "0")
    except UsageError as error:
        raise click.BadParameter(str(error), ctx, param) from error
    return value


def _limit(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    limit_speed(size(ctx, param, value))


BWLIMIT_HELP: Final = "Most bytes per second to and from remotes, such as 10M; 0: no limit."

bwlimit = click.option("--bwlimit", metavar="SIZE", expose_value=False, callback=_limit, help=BWLIMIT_HELP)
