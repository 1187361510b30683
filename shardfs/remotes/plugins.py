"""Kinds of remotes that other packages add. How to write one: docs/how-to/add-a-remote.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from shardfs.config import Settings
from shardfs.errors import ShardfsError, UsageError
from shardfs.remotes.base import Remote

GROUP: Final = "shardfs.remotes"
"""Group of entry points: the name is a URL scheme, the object `open(url, name, settings) -> Remote`."""


def find(scheme: str) -> Callable[[str, str, Settings], Remote] | None:
    """What opens URLs of a scheme, by the packages that are installed; None when none of them does.

    Raises:
        UsageError: two packages want the scheme, or the package cannot be imported.
    """
    from importlib import metadata

    found = list(metadata.entry_points(group=GROUP, name=scheme))
    if not found:
        return None
    if len(found) > 1:
        rivals = ", ".join(sorted(entry.value for entry in found))
        msg = f"more than one installed package opens {scheme}:// remotes: {rivals}; uninstall all but one"
        raise UsageError(msg)
    try:
        opener: Any = found[0].load()
    except (ImportError, AttributeError) as error:
        msg = f"{found[0].value}, which opens {scheme}:// remotes, cannot be imported: {error}"
        raise UsageError(msg) from error

    def open_(url: str, name: str, settings: Settings) -> Remote:
        try:
            remote: Remote = opener(url, name, settings)
        except ShardfsError:
            raise
        except Exception as error:
            msg = f"{found[0].value}, which opens {scheme}:// remotes, failed: {type(error).__name__}: {error}"
            raise UsageError(msg) from error
        return remote

    return open_
