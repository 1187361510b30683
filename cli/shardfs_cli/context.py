"""What all commands of one call share: where it runs, how it prints, and the repository it works on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from shardfs.errors import UsageError
from shardfs_cli.output import Output

if TYPE_CHECKING:
    from shardfs.repository import Repository


# How many names of a path below a mount choose the version.
_VERSION_DEPTH: Final = {"latest": 1, "staging": 1, "versions": 2, "commits": 2, "branches": 2, "tags": 2}


class Context:
    """One call of the command line.

    Attributes:
        output: where it prints to.
        debug: show tracebacks.
        verbose: 0, 1 (what happens), 2 (everything).
    """

    def __init__(self) -> None:
        self.output = Output()
        self.debug = False
        self.verbose = 0

    @contextmanager
    def repository(self) -> Iterator[Repository]:
        """The repository of the current directory, open for the block.

        Raises:
            RepositoryNotFoundError: none here or above.
        """
        import shardfs

        with shardfs.open(Path.cwd()) as repository:
            yield repository

    def path_in(self, repository: Repository, text: str) -> str:
        """A path that the user gave, relative to the current directory, as a path inside the repository.

        Below a mount, the directories `latest`, `staging` and `versions/NAME` (and so on) stand for the root.

        Raises:
            UsageError: it leads out of the repository.
        """
        here = Path.cwd()
        mount = _mount_above(here)
        if mount is not None:
            return _below_version(_normal(here.relative_to(mount) / text).parts)
        root = repository.root
        if root is None:
            return text
        full = _normal(here / text)
        for base in (root, root.resolve()):
            if full.is_relative_to(base):
                return _posix(full.relative_to(base))
        msg = f"{text} is outside the repository {root}"
        raise UsageError(msg)

    def place(self, repository: Repository, text: str) -> tuple[str, str]:
        """A revision and a path that the user gave as REV[:PATH]; the path starts at the root of the repository.

        With ./ or ../ in front it starts at the current directory.

        Raises:
            UsageError: no revision, or a path that leads out of the repository.
        """
        rev, _, path = text.partition(":")
        if not rev:
            msg = f"{text!r}: write REVISION or REVISION:PATH"
            raise UsageError(msg)
        return rev, self.path_in(repository, path) if path.startswith(("./", "../")) else path


def file_path(text: str) -> Path:
    """A path that the user gave, outside of what repositories hold; relative to the current directory.

    Raises:
        UsageError: it is empty or holds a NUL.
    """
    if not text or "\0" in text:
        msg = f"not a path: {text!r}"
        raise UsageError(msg)
    return Path(text)


def _normal(path: Path) -> Path:
    """`path` without "." and "..", by its text alone: what it names may be gone, or be on a mount."""
    return Path(os.path.normpath(path))


def _posix(path: Path) -> str:
    text = str(path)
    return "" if text == "." else text


def _mount_above(folder: Path) -> Path | None:
    for candidate in (folder, *folder.parents):
        try:
            if (candidate / ".shardfs" / "config.toml").is_file():
                return None
            if (candidate / ".shardfs" / "config.json").is_file():
                return candidate
        except OSError:  # a mount that has lost its daemon
            continue
    return None


def _below_version(parts: tuple[str, ...]) -> str:
    """A path below a mount as a path inside a version: the first one or two names choose the version."""
    skip = _VERSION_DEPTH.get(parts[0], 0) if parts else 0
    return "/".join(parts[skip:])
