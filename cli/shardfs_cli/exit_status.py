"""Exit statuses: one table from error classes. Printed in docs/reference/errors.md, which tests compare with it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import click

from shardfs import errors


class ExitStatus(IntEnum):
    """How a command ended."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NO_REPOSITORY = 10
    LOCKED = 11
    INTEGRITY = 13
    REMOTE = 14
    CONFLICT = 15
    INTERRUPTED = 130


MEANINGS: Final[dict[ExitStatus, str]] = {
    ExitStatus.DONE: "done",
    ExitStatus.FAILED: "failed; the message says why",
    ExitStatus.USAGE: "the command line has no meaning",
    ExitStatus.NO_REPOSITORY: "no repository here or above",
    ExitStatus.LOCKED: "another process is writing",
    ExitStatus.INTEGRITY: "stored data is damaged or missing",
    ExitStatus.REMOTE: "a remote failed, refused or did not answer",
    ExitStatus.CONFLICT: "the state is not the expected one; nothing was overwritten",
    ExitStatus.INTERRUPTED: "interrupted by Ctrl-C",
}

# The first class that an error is an instance of decides: subclasses stand before their base.
TABLE: Final[tuple[tuple[type[BaseException], ExitStatus], ...]] = (
    (errors.NothingToCommitError, ExitStatus.FAILED),
    (errors.UnsupportedFileError, ExitStatus.FAILED),
    (errors.UsageError, ExitStatus.USAGE),
    (errors.RepositoryNotFoundError, ExitStatus.NO_REPOSITORY),
    (errors.ObjectNotFoundError, ExitStatus.INTEGRITY),
    (errors.ChunkNotFoundError, ExitStatus.INTEGRITY),
    (errors.NotFoundError, ExitStatus.FAILED),
    (errors.IntegrityError, ExitStatus.INTEGRITY),
    (errors.UnsupportedVersionError, ExitStatus.FAILED),
    (errors.FormatError, ExitStatus.INTEGRITY),
    (errors.ConflictError, ExitStatus.CONFLICT),
    (errors.LockedError, ExitStatus.LOCKED),
    (errors.RemoteError, ExitStatus.REMOTE),
    (errors.ShardfsError, ExitStatus.FAILED),
    (click.UsageError, ExitStatus.USAGE),
    (click.ClickException, ExitStatus.FAILED),
    (click.Abort, ExitStatus.INTERRUPTED),
    (KeyboardInterrupt, ExitStatus.INTERRUPTED),
)


def status_of(error: BaseException) -> ExitStatus:
    """The exit status of a command that ended with `error`."""
    return status_of_class(type(error))


def status_of_class(class_: type[BaseException]) -> ExitStatus:
    """The exit status of errors of a class; FAILED for classes that the table does not know."""
    return next((status for known, status in TABLE if issubclass(class_, known)), ExitStatus.FAILED)
