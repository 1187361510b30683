"""Ways to get a `Repository`: make one, open one, clone one, look at a remote one."""

from __future__ import annotations

import shutil
from pathlib import Path

from blake3 import blake3

from shardfs import config, discovery
from shardfs.errors import AlreadyExistsError
from shardfs.formats.ref import BRANCHES, DEFAULT_BRANCH, REMOTES, Head
from shardfs.progress import Progress
from shardfs.repository import Repository
from shardfs.store.store import Store


def init(path: Path, *, bare: bool = False, branch: str = DEFAULT_BRANCH) -> Repository:
    """See `shardfs.init`."""
    store = path if bare else path / discovery.STORE_NAME
    Store.create(store.absolute(), branch=branch).close()
    return Repository(store.absolute())


def open_at(path: Path) -> Repository:
    """See `shardfs.open`."""
    return Repository(discovery.find_store(path))


def clone(url: str, path: Path, *, full: bool = False, progress: Progress | None = None) -> Repository:
    """See `shardfs.clone`. What a failed clone made is removed again."""
    from shardfs.remotes import registry

    registry.check_url(url)
    existed = path.exists()
    if existed and (not path.is_dir() or any(path.iterdir())):
        msg = f"{path} is not an empty directory"
        raise AlreadyExistsError(msg)
    repo = init(path)
    try:
        _first_fetch(repo, url, full=full, progress=progress)
    except BaseException:
        repo.close()
        shutil.rmtree(path / discovery.STORE_NAME if existed else path, ignore_errors=True)
        raise
    store_path = repo.store_path
    repo.close()
    return Repository(store_path)


def _first_fetch(repo: Repository, url: str, *, full: bool, progress: Progress | None) -> None:
    repo.add_remote("origin", url)
    published = repo.remote("origin").refs()
    fetched = repo.fetch("origin", full=full, progress=progress)
    branch = (published.head or BRANCHES + DEFAULT_BRANCH).removeprefix(BRANCHES)
    fetched.check_followed(repo.store.refs, "origin", BRANCHES + branch)
    tip = repo.ref(f"{REMOTES}origin/{branch}")
    repo.store.refs.set_head(Head(BRANCHES + branch))
    if tip is not None:
        repo.store.refs.move(
            BRANCHES + branch,
            None,
            tip,
            author=repo.settings.author,
            message=f"clone: from {repo.remote('origin').url}",
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
