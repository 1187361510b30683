"""The whole error tree.

Every error that shardfs raises on purpose derives from `ShardfsError`. The message is one line that says what
happened, to which object, and what to do. `retryable` tells the retry wrapper of a remote whether asking again
can help. The mount turns errors into errno values and the command line into exit statuses, each in one table.
"""

from __future__ import annotations

import os


class ShardfsError(Exception):
    """Root of all errors raised by shardfs."""

    retryable = False


class UsageError(ShardfsError):
    """The caller asked for something that has no meaning."""


class NothingToCommitError(UsageError):
    """The staging area equals the tip of its branch."""


class UnsupportedFileError(UsageError):
    """A device, socket or pipe cannot be versioned."""


class NotFoundError(ShardfsError, LookupError):
    """Something that was named does not exist."""

    def __str__(self) -> str:
        return Exception.__str__(self)


class RepositoryNotFoundError(NotFoundError):
    """No repository at or above the given directory."""


class RevisionNotFoundError(NotFoundError):
    """A revision names no commit, or more than one."""


class RefNotFoundError(NotFoundError):
    """No branch, tag or remote of that name."""


class PathNotFoundError(NotFoundError):
    """A path does not exist in a commit, in staging or on disk."""


class ObjectNotFoundError(NotFoundError):
    """No copy of a commit, tree or manifest is known."""


class ChunkNotFoundError(NotFoundError):
    """No copy of a chunk is known."""


class PackNotFoundError(NotFoundError):
    """A remote has no such pack (any more); its list of packs must be fetched again."""


class IntegrityError(ShardfsError):
    """Stored bytes are not what they must be; every copy that is known was tried."""


class ChunkCorruptedError(IntegrityError):
    """Every copy of a chunk is damaged."""


class ObjectCorruptedError(IntegrityError):
    """Every copy of a commit, tree or manifest is damaged."""


class PackCorruptedError(IntegrityError):
    """A pack file is truncated, missing or does not describe itself."""


class RefCorruptedError(IntegrityError):
    """A ref file does not hold a commit id."""


class IndexCorruptedError(IntegrityError):
    """The index database cannot be read; `shardfs doctor --rebuild-index` makes it again."""


class FormatError(ShardfsError, ValueError):
    """Bytes do not follow their format."""


class UnsupportedVersionError(FormatError):
    """Bytes follow a newer version of a format than this program knows."""


class MalformedError(FormatError):
    """Bytes break a rule of their format."""


class ConflictError(ShardfsError):
    """The state is not the one that the caller expected."""


class RefChangedError(ConflictError):
    """A ref moved since it was read (lost compare-and-swap)."""

    def __init__(self, message: str, current: bytes | None = None) -> None:
        super().__init__(message)
        self.current = current


class NotFastForwardError(ConflictError):
    """The new commit does not contain the old one."""


class AlreadyExistsError(ConflictError):
    """The name is taken."""


class FileChangedError(ConflictError):
    """A file was written to while it was being read."""


class LocalChangesError(ConflictError):
    """Files have changes that the operation would overwrite."""


class LockedError(ShardfsError):
    """Another process holds the lock; the message says which and since when."""


class StoreError(ShardfsError):
    """The local disk refused to read or write."""


class OutOfSpaceError(StoreError):
    """The disk or quota is full. Nothing that was stored is lost."""


class ReadOnlyError(StoreError):
    """The store is on a read-only file system or not writable by this user."""


class AreaError(ShardfsError, OSError):
    """A staging area refused a file operation, with the errno that a file system would give."""

    def __init__(self, code: int, subject: bytes | str = "") -> None:
        OSError.__init__(self, code, os.strerror(code))
        self.subject = subject if isinstance(subject, str) else subject.decode("utf-8", "backslashreplace")

    def __str__(self) -> str:
        reason = self.strerror or "refused"
        return f"{self.subject}: {reason}" if self.subject else reason


class FsError(ShardfsError, OSError):
    """The mount refused a file operation, with the errno that the program sees."""

    def __init__(self, code: int) -> None:
        OSError.__init__(self, code, os.strerror(code))

    def __str__(self) -> str:
        return self.strerror or "refused"


class MountError(ShardfsError):
    """The mount could not be made, found or ended."""


class RemoteError(ShardfsError):
    """A remote failed."""


class RemoteUnavailableError(RemoteError):
    """The remote cannot be reached, broke the connection or answered 5xx."""

    retryable = True

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class RemoteUnreachableError(RemoteUnavailableError):
    """No connection to the remote can be made: unknown host, refused, no route."""


class RemoteDownError(RemoteUnavailableError):
    """The remote has been failing for so long that it is asked again only now and then; waiting is of no use."""

    retryable = False


class RemoteTimeoutError(RemoteError):
    """The remote did not answer before the deadline."""

    retryable = True


class RemoteDeniedError(RemoteError):
    """The remote refused the request."""


class RemoteLoginError(RemoteDeniedError):
    """The remote wants a token, or another one than it was shown."""


class RemotePermissionError(RemoteDeniedError):
    """The remote knows who asks, who may not do this there."""


class RemoteOfflineError(RemoteError):
    """No remote is asked, because this program was told to be offline."""


class RemoteProtocolError(RemoteError):
    """The remote answered something that breaks the protocol."""
