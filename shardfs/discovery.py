"""Where the repository of a directory is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from shardfs.errors import RepositoryNotFoundError

STORE_NAME: Final = ".shardfs"


def find_store(start: Path) -> Path:
    """The store directory of the repository that `start` is in.

    Looks at `start` and each directory above it for a work tree (`.shardfs/config.toml`), a bare store, or a
    mount (whose `.shardfs/config.json` names its repository). A directory on a dead mount counts as empty.

    Raises:
        RepositoryNotFoundError: none of them belongs to a repository, or it is a mount of a remote.
    """
    start = start.absolute()
    if ".." in start.parts:  # /a/b/../c is not below /a/b
        start = start.resolve()
    for folder in (start, *start.parents):
        store = folder / STORE_NAME
        if _is_file(store / "config.toml"):
            return store
        if _is_file(folder / "config.toml") and _is_file(folder / "HEAD") and (folder / "packs").is_dir():
            return folder
        mounted = _mounted_store(store / "config.json")
        if mounted is not None:
            return mounted
    msg = f"no repository at {start} or above; `shardfs init` makes one"
    raise RepositoryNotFoundError(msg)


def work_tree(store: Path) -> Path | None:
    """The directory whose files a store versions, None for a bare store."""
    return store.parent if store.name == STORE_NAME else None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False


def _mounted_store(config: Path) -> Path | None:
    if not _is_file(config):
        return None
    try:
        told = json.loads(config.read_text("utf-8"))
        if "url" in told:
            msg = f"{config.parent.parent} shows {told['url']}, of which there is no clone; `shardfs clone` makes one"
            raise RepositoryNotFoundError(msg)
        store = Path(told["repository"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return store if _is_file(store / "config.toml") else None
