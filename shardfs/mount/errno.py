"""Which errno a program that uses the mount sees for which error. The one table; docs/reference/mount-semantics.md."""

from __future__ import annotations

import errno
from typing import Final

from shardfs.errors import (
    AlreadyExistsError,
    ConflictError,
    FileChangedError,
    LockedError,
    NothingToCommitError,
    OutOfSpaceError,
    ReadOnlyError,
    ShardfsError,
    UsageError,
)

# First match wins. What is not listed is EIO: bytes that cannot be had, for whatever reason.
_TABLE: Final[tuple[tuple[type[BaseException], int], ...]] = (
    (NothingToCommitError, errno.ENODATA),
    (UsageError, errno.EINVAL),
    (AlreadyExistsError, errno.EEXIST),
    (FileChangedError, errno.EBUSY),
    (ConflictError, errno.ESTALE),
    (LockedError, errno.EBUSY),
    (OutOfSpaceError, errno.ENOSPC),
    (ReadOnlyError, errno.EROFS),
    (MemoryError, errno.ENOMEM),
)


def errno_of(error: BaseException) -> int:
    """The errno of an error, a positive number."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    for kind, code in _TABLE:
        if isinstance(error, kind):
            return code
    return errno.EIO


def worth_recording(error: BaseException, code: int) -> bool:
    """Whether somebody may want to know the cause later: anything whose message says more than its errno."""
    return code in (errno.EIO, errno.ENOSPC, errno.EBUSY, errno.ESTALE) or (
        isinstance(error, ShardfsError) and not isinstance(error, OSError)
    )
