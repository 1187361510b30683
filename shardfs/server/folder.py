"""What a server keeps beside its repositories: `<root>/.server/`. Spec: docs/design/format/server.md.

No repository can have this name, so no path of a request leads there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shardfs.errors import StoreError
from shardfs.store.atomic import writing

PRIVATE: Final = 0o600  # for whoever the server runs as, and nobody else


def make_folder(folder: Path, purpose: str, mode: int = 0o777) -> None:
    """Make the directory that a server works in, and those above it, where they are missing.

    Args:
        folder: the directory.
        purpose: begins the message ("cannot serve").
        mode: permissions of a new one, less the umask.

    Raises:
        StoreError: it cannot be made, or is something else.
    """
    try:
        folder.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is no directory" if isinstance(error, FileExistsError) else error.strerror
        msg = f"{purpose} {folder}: {reason}"
        raise StoreError(msg) from error


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """Paths of one server.

    Attributes:
        root: directory of all repositories.
    """

    root: Path

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.root / ".server"

    @property
    def tokens(self) -> Path:
        """Tokens, as digests."""
        return self.path / "tokens.json"

    @property
    def config(self) -> Path:
        """Rules that an operator writes."""
        return self.path / "config.toml"

    @property
    def audit(self) -> Path:
        """Who did what."""
        return self.path / "audit.log"

    @property
    def lock(self) -> Path:
        """One writer of tokens at a time."""
        return self.path / "lock"

    @property
    def tmp(self) -> Path:
        """Unfinished writes."""
        return self.path / "tmp"

    def make(self) -> None:
        """Make the folder if it is missing; nobody else may look into it.

        Raises:
            OutOfSpaceError, ReadOnlyError, StoreError: by the disk, or there is no root.
        """
        with writing(f"cannot make {self.path}"):
            self.path.mkdir(mode=0o700, exist_ok=True)

    @contextmanager
    def owner(self) -> Iterator[None]:
        """Work as the user who owns the root, if this is the superuser: the server is that user and must read it.

        Raises:
            StoreError: there is no root.
        """
        try:
            found = self.root.stat()
        except OSError as error:
            msg = f"{self.root} cannot be used: {error.strerror}"
            raise StoreError(msg) from error
        if os.geteuid() != 0 or found.st_uid == 0:
            yield
            return
        group = os.getegid()
        os.setegid(found.st_gid)
        os.seteuid(found.st_uid)
        try:
            yield
        finally:
            os.seteuid(0)
            os.setegid(group)
