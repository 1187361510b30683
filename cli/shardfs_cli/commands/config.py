"""`shardfs config`."""

from __future__ import annotations

from pathlib import Path

import click

from shardfs import config, discovery
from shardfs.errors import RepositoryNotFoundError, UsageError
from shardfs_cli import output
from shardfs_cli.command import OPENS, group
from shardfs_cli.context import Context


@group(
    "config",
    exits=OPENS,
    examples=("shardfs config list", 'shardfs config set user.author "Ada <ada@example.org>"'),
)
def command() -> None:
    """Read and write settings of this repository, or with --user those of all repositories.

    The environment (SHARDFS_*) outweighs the repository's settings, and those outweigh the user's.
    """


@command.command("list", exits=OPENS, examples=("shardfs config list --json",))
@click.pass_obj
def list_values(context: Context) -> None:
    """List all settings in force."""
    values = _in_force()
    if context.output.json:
        context.output.document(values)
        return
    context.output.lines(output.table([(key, output.name(value)) for key, value in values.items()]))


@command.command("get", exits=OPENS, examples=("shardfs config get cache.size",))
@click.argument("key")
@click.pass_obj
def get(context: Context, key: str) -> None:
    """Print the setting in force for KEY."""
    values = _in_force()
    if key not in values:
        msg = f"no setting {key!r}; there are {', '.join(values)}"
        raise UsageError(msg)
    if context.output.json:
        context.output.document({"key": key, "value": values[key]})
        return
    context.output.line(values[key])


@command.command("set", exits=OPENS, examples=("shardfs config set cache.size 20GiB --user",))
@click.argument("key")
@click.argument("value")
@click.option("--user", is_flag=True, help="For all repositories of this user.")
@click.pass_obj
def set_value(context: Context, key: str, value: str, *, user: bool) -> None:
    """Set KEY to VALUE."""
    config.set_value(_file(user=user), key, value)
    if context.output.json:
        context.output.document({"key": key, "value": value})


@command.command("unset", exits=OPENS, examples=("shardfs config unset cache.size",))
@click.argument("key")
@click.option("--user", is_flag=True, help="For all repositories of this user.")
@click.pass_obj
def unset(context: Context, key: str, *, user: bool) -> None:
    """Take KEY out of the settings, so that what it outweighed is in force."""
    config.set_value(_file(user=user), key, None)
    if context.output.json:
        context.output.document({"key": key, "value": None})


def _file(*, user: bool) -> Path:
    """The settings file. The repository is not opened: it might not open because of a setting."""
    return config.user_file() if user else discovery.find_store(Path.cwd()) / "config.toml"


def _in_force() -> dict[str, str]:
    try:
        file: Path | None = _file(user=False)
    except RepositoryNotFoundError:
        file = None
    settings = config.load(file)
    return {key: _text(getattr(settings, attribute)) for key, attribute in config.KEYS.items()}


def _text(value: object) -> str:
    """A value as `set` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
