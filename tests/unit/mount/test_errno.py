"""Which errno programs see."""

from __future__ import annotations

import errno

import pytest

from shardfs import errors
from shardfs.mount.errno import errno_of, worth_recording

CASES = (
    (errors.FsError(errno.EXDEV), errno.EXDEV),
    (errors.AreaError(errno.ENOTEMPTY, b"d"), errno.ENOTEMPTY),
    (errors.ChunkNotFoundError("x"), errno.EIO),
    (errors.ChunkCorruptedError("x"), errno.EIO),
    (errors.ObjectNotFoundError("x"), errno.EIO),
    (errors.RemoteTimeoutError("x"), errno.EIO),
    (errors.RemoteDeniedError("x"), errno.EIO),
    (errors.MalformedError("x"), errno.EIO),
    (errors.NothingToCommitError("x"), errno.ENODATA),
    (errors.UsageError("x"), errno.EINVAL),
    (errors.AlreadyExistsError("x"), errno.EEXIST),
    (errors.FileChangedError("x"), errno.EBUSY),
    (errors.RefChangedError("x"), errno.ESTALE),
    (errors.LockedError("x"), errno.EBUSY),
    (errors.OutOfSpaceError("x"), errno.ENOSPC),
    (errors.ReadOnlyError("x"), errno.EROFS),
    (errors.StoreError("x"), errno.EIO),
    (MemoryError(), errno.ENOMEM),
    (OSError(), errno.EIO),
    (RuntimeError("x"), errno.EIO),
)


@pytest.mark.parametrize(("error", "code"), CASES, ids=[type(case[0]).__name__ for case in CASES])
def test_every_error_has_an_errno(error: BaseException, code: int) -> None:
    assert errno_of(error) == code


def test_every_error_of_the_package_is_covered() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, errors.ShardfsError)]
    for kind in kinds:
        error = kind(errno.ENOENT) if issubclass(kind, OSError) else kind("x")
        assert errno_of(error) in errno.errorcode


def test_what_an_errno_says_well_is_not_recorded() -> None:
    assert not worth_recording(errors.FsError(errno.ENOENT), errno.ENOENT)
    assert not worth_recording(errors.AreaError(errno.EEXIST, b"x"), errno.EEXIST)
    assert worth_recording(errors.AreaError(errno.ENOSPC, b"x"), errno.ENOSPC)
    assert worth_recording(errors.ChunkNotFoundError("x"), errno.EIO)
    assert worth_recording(errors.NothingToCommitError("x"), errno.ENODATA)
