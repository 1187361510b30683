"""Version control for AI models and datasets that can be mounted.

>>> import shardfs
>>> repo = shardfs.init("project")                    # doctest: +SKIP
>>> repo.add(["project/model.safetensors"])           # doctest: +SKIP
>>> repo.commit("initial")                            # doctest: +SKIP
>>> repo.read("HEAD:model.safetensors").read(8)       # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from shardfs.repository import Repository
    from shardfs.transfer.fetch import FetchPlan, FetchReport

__version__ = "0.1.0"
__all__ = ["__version__", "clone", "init", "mirror", "open", "open_remote", "plan_clone"]


def init(path: str | Path = ".", *, bare: bool = False, branch: str = "main") -> Repository:
    """Make a repository in a directory and open it.

    Args:
        path: directory, made when missing; the store is `.shardfs` in it.
        bare: make the directory itself the store, without a work tree, as servers have it.
        branch: name of the first branch.

    Raises:
        AlreadyExistsError: there is a repository. ReadOnlyError, OutOfSpaceError, StoreError: by the disk.
    """
    from shardfs import opening

    return opening.init(Path(path), bare=bare, branch=branch)


def open(path: str | Path = ".") -> Repository:
    """Open the repository that a directory is in: the directory itself or one above it, or a mount of it.

    Raises:
        RepositoryNotFoundError: there is none.
    """
    from shardfs import opening

    return opening.open_at(Path(path))


def clone(
    url: str,
    path: str | Path,
    *,
    full: bool = False,
    filters: Sequence[str] = (),
    branch: str | None = None,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> Repository:
    """Copy history and metadata of a remote into a new repository; bytes come when they are read.

    Args:
        url: a directory or an http(s) address.
        path: directory that is missing or empty.
        full: copy all bytes now; the same as the filter "all".
        filters: what is wanted: "none", "all", "path=GLOB", "size<SIZE", "branch=GLOB". Later fetches keep to those of
            paths, sizes and branches.
        branch: follow this branch only, and check it out instead of the remote's HEAD.
        progress: called with bytes done, bytes in all and a name.

    Raises:
        RepositoryNotFoundError: nothing was made. RemoteError: what came stays, and the same call goes on with it.
        IntegrityError: the same, where contents that are to be copied are damaged at the remote.
        AlreadyExistsError: the directory is not empty. UsageError: not a filter. RefNotFoundError: no such branch.
    """
    from shardfs import opening

    return opening.clone(url, Path(path), full=full, filters=filters, branch=branch, progress=progress)


def plan_clone(url: str, *, full: bool = False, filters: Sequence[str] = (), branch: str | None = None) -> FetchPlan:
    """What `clone` with the same arguments would move and transfer at first; makes nothing.

    Raises:
        RepositoryNotFoundError, RemoteError: by the remote. UsageError: not a filter.
    """
    from shardfs import opening

    return opening.plan_clone(url, full=full, filters=filters, branch=branch)


def mirror(
    url: str, path: str | Path, *, progress: Callable[[int, int | None, str], None] | None = None
) -> FetchReport:
    """Make a directory a full copy of a remote, or bring such a copy up to date: all packs, branches, tags and HEAD.

    Readers of the directory see each ref only when all that it needs is there. May be interrupted and run again.

    Args:
        url: a directory or an http(s) address.
        path: directory that is missing, empty or a mirror of `url`; it is a repository without a work tree.
        progress: called with bytes done, bytes in all and a name.

    Returns:
        What was done. What is damaged at the remote, or missing there, is in `lost`; all else is here.

    Raises:
        RepositoryNotFoundError, RemoteError: by the remote; refs of which all came are up to date.
        AlreadyExistsError: something else is there.
    """
    from shardfs import opening

    return opening.mirror(url, Path(path), progress)


def open_remote(url: str) -> Repository:
    """Open a read-only view of a remote, without a clone; its metadata is kept in the user's cache directory.

    Raises:
        RepositoryNotFoundError, RemoteError: no repository there, or it cannot be reached.
    """
    from shardfs import opening

    return opening.open_remote(url)
