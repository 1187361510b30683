"""The stores below one root directory, opened when first asked for."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from shardfs.errors import AlreadyExistsError, LockedError, ReadOnlyError, RepositoryNotFoundError, StoreError
from shardfs.store.layout import Layout
from shardfs.store.receive import settle
from shardfs.store.store import Store

_log = logging.getLogger(__name__)

# What a repository has whose making was interrupted: the settings file comes last.
_UNFINISHED: Final = frozenset({"HEAD", "info", "lock", "packs", "refs", "tmp"})
_MAX_OPEN: Final = 64  # stores kept open; each holds a few file descriptors per thread
_LOCK_WAIT_S: Final = 20.0  # then the client is told to come back

_T = TypeVar("_T")
_Result = TypeVar("_Result")


class Repositories:
    """Stores by name, opened on threads: one thread for each that is being opened, whoever else waits for it.

    For one event loop.

    Args:
        root: directory of all repositories.
        threads: where stores are opened.
        read_only: nothing is changed.
        create: a repository is made when something is put into it.
    """

    def __init__(self, root: Path, threads: Executor, *, read_only: bool = False, create: bool = True) -> None:
        self._root = root
        self._threads = threads
        self.read_only = read_only
        self._create = create and not read_only
        self._open: OrderedDict[str, tuple[Store, int]] = OrderedDict()
        self._opening: dict[str, asyncio.Future[Store]] = {}
        self._making = asyncio.Lock()  # of two at once one could lie inside the other

    def layout(self, name: str) -> Layout:
        """The files of an existing repository, for reading; opens no database.

        Raises:
            RepositoryNotFoundError: there is none.
        """
        layout = Layout(self._root / name)
        if not layout.config.is_file():
            msg = f"no repository {name}"
            raise RepositoryNotFoundError(msg)
        return layout

    async def store(self, name: str) -> Store:
        """The store of an existing repository.

        Raises:
            RepositoryNotFoundError: there is none.
        """
        layout = self.layout(name)
        found = self._open.get(name)
        if found is not None and found[1] == _inode(layout):
            self._open.move_to_end(name)
            return found[0]
        opening = self._opening.get(name)
        if opening is None:
            opening = self._opening[name] = asyncio.ensure_future(self._opened(name, layout))
            opening.add_done_callback(lambda _: self._opening.pop(name))
        return await asyncio.shield(opening)  # others wait for it, too

    def is_open(self, name: str) -> bool:
        """Whether the store of a repository is open already."""
        return name in self._open

    def open_count(self) -> int:
        """How many stores are open now."""
        return len(self._open)

    async def writable(self, name: str) -> Store:
        """The store of a repository that is about to change; made if the server makes any.

        Raises:
            RepositoryNotFoundError: there is none, and the server makes none.
            ReadOnlyError: nothing may change here.
        """
        if self.read_only:
            msg = "this server is read-only"
            raise ReadOnlyError(msg)
        try:
            return await self.store(name)
        except RepositoryNotFoundError:
            if not self._create:
                raise
        async with self._making:
            await self._run(self._make, name)
        return await self.store(name)

    def close(self) -> None:
        """Close all stores; the threads have ended."""
        while self._open:
            self._open.popitem()[1][0].close()

    async def _opened(self, name: str, layout: Layout) -> Store:
        store, inode = await self._run(self._open_store, layout)
        self._open[name] = store, inode
        self._open.move_to_end(name)
        # The one that falls out closes with its last user: it may be in the middle of a request.
        while len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)
        return store

    def _run(self, function: Callable[[_T], _Result], argument: _T) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function, argument)

    # On the threads

    def _open_store(self, layout: Layout) -> tuple[Store, int]:
        inode = _inode(layout)
        store = Store(layout.root, _LOCK_WAIT_S)
        self._settle(store)
        return store, inode

    def _make(self, name: str) -> None:
        self._check_free(name)
        with suppress(AlreadyExistsError):
            Store.create(self._root / name).close()

    def _settle(self, store: Store) -> None:
        """What a killed process left half done would mislead readers. A writer that is at work does the same."""
        if not self.read_only:
            try:
                settle(store, wait_s=0)
            except (LockedError, StoreError) as error:
                _log.warning("%s: %s", store.layout.root, error)

    def _check_free(self, name: str) -> None:
        """Refuse to make a repository inside another one, or in a directory that has content."""
        path = self._root / name
        for folder in path.relative_to(self._root).parents:
            if Layout(self._root / folder).config.exists():
                msg = f"{folder.as_posix()} is a repository itself; nothing can be made inside it"
                raise ReadOnlyError(msg)
        if Layout(path).config.exists() or not path.exists():
            return
        if not path.is_dir() or not {entry.name for entry in path.iterdir()} <= _UNFINISHED:
            msg = f"{name} exists and is not a repository"
            raise ReadOnlyError(msg)


def _inode(layout: Layout) -> int:
    """Differs when a repository was deleted and another one was put in its place."""
    try:
        return layout.config.stat().st_ino
    except FileNotFoundError:
        return 0
