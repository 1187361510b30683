"""Ways to get a `Repository`: make one, open one, clone one, look at a remote one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blake3 import blake3

from shardfs import config, discovery
from shardfs.errors import AlreadyExistsError, IntegrityError, RefNotFoundError, RemoteError, ShardfsError, StoreError
from shardfs.formats.ref import BRANCHES, DEFAULT_BRANCH, REMOTES, Head
from shardfs.progress import Progress, no_progress
from shardfs.repository import Repository
from shardfs.store import atomic
from shardfs.store.index import LOCAL
from shardfs.store.layout import Layout
from shardfs.store.store import Store

if TYPE_CHECKING:
    from shardfs.transfer.fetch import FetchPlan, FetchReport

# What requests that were still running make again while a failed clone is removed; no fact is in them alone.
_REMADE: Final = {"tmp", "index.sqlite", "index.sqlite-wal", "index.sqlite-shm"}
_PASSING: Final = (IntegrityError, RemoteError, StoreError, KeyboardInterrupt)  # after which a clone may go on
_UNFINISHED: Final = "unfinished"  # a file in the store of a clone that is being made: the digest of its URL


def init(path: Path, *, bare: bool = False, branch: str = DEFAULT_BRANCH) -> Repository:
    """See `shardfs.init`."""
    store = path if bare else path / discovery.STORE_NAME
    Store.create(store.absolute(), branch=branch).close()
    return Repository(store.absolute())


def open_at(path: Path) -> Repository:
    """See `shardfs.open`."""
    return Repository(discovery.find_store(path))


def clone(
    url: str,
    path: Path,
    *,
    full: bool = False,
    filters: Sequence[str] = (),
    branch: str | None = None,
    progress: Progress | None = None,
) -> Repository:
    """See `shardfs.clone`."""
    from shardfs.remotes import registry

    wanted = _Wanted(full=full, filters=filters, branch=branch)
    registry.check_url(url)
    store = (path / discovery.STORE_NAME).absolute()
    existed = path.exists()
    with _unfinished(path, store / _UNFINISHED, url):
        repo = Repository(store) if Layout(store).config.exists() else init(path)
        try:
            _first_fetch(repo, url, wanted, progress)
        except BaseException as error:
            may_go_on = isinstance(error, _PASSING) and _has_packs(repo)
            repo.close()
            if not may_go_on:
                shutil.rmtree(store if existed else path, ignore_errors=True)
            raise
        repo.close()
    return Repository(store)


def _has_packs(repo: Repository) -> bool:
    with suppress(ShardfsError):
        return bool(repo.store.index.packs(LOCAL))
    return False


class _Wanted:
    """What a clone shall have."""

    def __init__(self, *, full: bool, filters: Sequence[str], branch: str | None) -> None:
        from shardfs.transfer import filters as words

        self.branch = branch
        self.words = [*filters, *(["all"] if full else []), *([f"branch={branch}"] if branch is not None else [])]
        self.filter = words.parse(self.words)

    @property
    def kept(self) -> list[str]:
        """The words that later fetches keep to: not that all contents were wanted once."""
        return [word for word in self.words if word not in ("all", "none")]


@contextmanager
def _unfinished(path: Path, mark: Path, url: str) -> Iterator[None]:
    """Mark the clone at `path` as being made by this process, until the end of the block.

    Raises:
        AlreadyExistsError: there is something else, or another process is at it.
    """
    digest = blake3(url.encode("utf-8", "surrogateescape")).hexdigest()  # the URL itself may hold a password
    if path.exists():
        found = {entry.name for entry in path.iterdir()} if path.is_dir() else {path.name}
        if found and not (found == {discovery.STORE_NAME} and _is_left_by(mark, digest)):
            msg = f"{path} is not an empty directory"
            raise AlreadyExistsError(msg)
    with atomic.writing(f"cannot create {path}"):
        mark.parent.mkdir(parents=True, exist_ok=True)
        file = mark.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"{path} is being made by another process"
            raise AlreadyExistsError(msg) from None
        found_mark = os.fstat(file.fileno())
        is_gone, is_new = not found_mark.st_nlink, not found_mark.st_size
        if is_gone or (is_new and Layout(mark.parent).config.exists()):
            if not is_gone:
                mark.unlink()
            msg = f"{path} was made by another process meanwhile"
            raise AlreadyExistsError(msg)
        if is_new:
            mark.write_text(digest, "ascii")
        yield
        mark.unlink()


def _is_left_by(mark: Path, digest: str) -> bool:
    """Whether a store was left behind by a clone of the URL with this digest."""
    if not mark.exists():
        return {entry.name for entry in mark.parent.iterdir()} <= _REMADE
    return mark.read_text("ascii", "replace") in ("", digest)


def _first_fetch(repo: Repository, url: str, wanted: _Wanted, progress: Progress | None) -> None:
    if "origin" not in repo.remotes():
        repo.add_remote("origin", url)
    repo.set_filters("origin", wanted.kept)
    fetched = repo.fetch("origin", full=wanted.filter.everything, progress=progress)
    branch = _first_branch(fetched, wanted)
    fetched.check_followed("origin", BRANCHES + branch)
    if fetched.lost and wanted.filter.picks:
        raise fetched.lost[0]
    tip = repo.ref(f"{REMOTES}origin/{branch}")
    repo.store.refs.set_head(Head(BRANCHES + branch))
    repo.set_upstream(branch, "origin")
    here = repo.ref(BRANCHES + branch)
    if tip is not None and here != tip:
        repo.store.refs.move(
            BRANCHES + branch,
            here,
            tip,
            author=repo.settings.author,
            message=f"clone: from {repo.remote('origin').url}",
        )


def _first_branch(fetched: FetchReport, wanted: _Wanted) -> str:
    """Short name of the branch that a clone checks out.

    Raises:
        RefNotFoundError: the remote has none that is wanted.
    """
    branch = wanted.branch or (fetched.head or BRANCHES + DEFAULT_BRANCH).removeprefix(BRANCHES)
    if not wanted.filter.branches or BRANCHES + branch in fetched.refs:
        return branch
    followed = [name.removeprefix(BRANCHES) for name in fetched.refs if name.startswith(BRANCHES)]
    if wanted.branch is not None or not followed:
        msg = f"the remote has no branch {' or '.join(wanted.filter.branches)}"
        raise RefNotFoundError(msg)
    return followed[0]


def plan_clone(url: str, *, full: bool = False, filters: Sequence[str] = (), branch: str | None = None) -> FetchPlan:
    """See `shardfs.plan_clone`."""
    from shardfs.transfer.fetch import plan_fetch

    wanted = _Wanted(full=full, filters=filters, branch=branch).filter
    with tempfile.TemporaryDirectory(prefix="shardfs-") as folder, init(Path(folder), bare=True) as nothing:
        nothing.add_remote("origin", url)
        return plan_fetch(nothing.store, nothing.remote("origin"), wanted=wanted)


def mirror(url: str, path: Path, progress: Progress | None = None) -> FetchReport:
    """See `shardfs.mirror`."""
    from shardfs.remotes import credentials, registry
    from shardfs.transfer import contents
    from shardfs.transfer import mirror as mirrors
    from shardfs.transfer.filters import Filter

    registry.check_url(url)
    url = credentials.keep(url)
    if not (path / "config.toml").exists():
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            msg = f"{path} is neither an empty directory nor a mirror"
            raise AlreadyExistsError(msg)
        remote = registry.open_remote(url, settings=config.load(None))
        try:
            remote.refs()  # where there is no repository, nothing is made
        finally:
            remote.close()
        mirrors.create(path, url)
    with Repository(path.absolute()) as repo:
        if repo.settings.remotes.get("origin") != url or repo.root is not None:
            msg = f"{path} is no mirror of {repo.remote('origin').url if repo.settings.remotes else 'anything'}"
            raise AlreadyExistsError(msg)
        return mirrors.mirror(
            repo.store,
            repo.remote("origin"),
            wanted=Filter(everything=True),
            keep=lambda ids: contents.keep(repo.store, repo.chunks, ids, progress or no_progress).errors,
            progress=progress,
        )


def open_remote(url: str) -> Repository:
    """See `shardfs.open_remote`."""
    from shardfs.remotes import credentials, registry
    from shardfs.transfer import mirror

    registry.check_url(url)
    url = credentials.keep(url)
    name = blake3(url.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    path = config.cache_home() / "remotes" / name
    if not (path / "config.toml").exists():
        mirror.create(path, url)
    repo = Repository(path, url=url)
    try:
        repo.refresh()
    except BaseException:
        repo.close()
        raise
    return repo
