"""The parts of an open repository and how they hang together."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, Self, TypeVar

from shardfs import config, discovery
from shardfs.config import Settings
from shardfs.errors import ReadOnlyError, RefNotFoundError
from shardfs.formats.manifest import ChunkRef
from shardfs.formats.tree import FileEntry
from shardfs.history.content import FileReader, manifest_of
from shardfs.history.objects import Objects
from shardfs.history.versions import VersionList
from shardfs.prefetch.orders import Orders
from shardfs.prefetch.prefetcher import Prefetcher
from shardfs.staging.area import Area
from shardfs.store.cache import Cache
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from shardfs.transfer.standings import Standings
from shardfs.transfer.tier import Tier

if TYPE_CHECKING:
    from shardfs.remotes.base import Remote
    from shardfs.transfer.speeds import Direction

    # Part of the facade: who shows it names its type.
    from shardfs.transfer.speeds import Expectation as Expectation

FAR: Final = 32 << 20  # bytes fetched ahead of a reader: 20 ms of a link of 1 Gbit/s are 2.5 MB, and decoding goes on
INGEST_BUDGET: Final = 64 << 20  # bytes of decoded chunks that ingest keeps: the bases of two chunks in the works

_P = ParamSpec("_P")
_T = TypeVar("_T")
_W = TypeVar("_W", bound="Wiring")


def remembers_speed(transfer: Callable[Concatenate[_W, _P], _T]) -> Callable[Concatenate[_W, _P], _T]:
    """A method of `Wiring` after which the speeds of remotes in it are known."""

    @wraps(transfer)
    def remembering(self: _W, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        from shardfs.transfer.speeds import Speeds

        urls, limit = self.settings.remotes, self.settings.bwlimit
        with Speeds(self.store.layout).remembered(urls, self._remotes, limit):
            return transfer(self, *args, **kwargs)

    return remembering


def expect_first(size: int) -> Expectation | None:
    """How long the first transfer of a new repository will take, by the limit of speed; None when there is none."""
    from shardfs.transfer.speeds import expectation

    return expectation(size, None, config.load(None).bwlimit)


class Wiring:
    """What `Repository` is made of. Remotes and staging areas are opened when they are asked for."""

    def __init__(self, store_path: Path, *, url: str | None = None) -> None:
        """Open a store.

        Args:
            store_path: the store directory.
            url: the remote that the store is a view of, if it is one.

        Raises:
            RepositoryNotFoundError, UnsupportedVersionError, MalformedError: no store that this program reads.
        """
        self.store_path = store_path
        self.root = discovery.work_tree(store_path) if url is None else None
        self.read_only = url is not None or not os.access(store_path, os.W_OK)
        self.url = url
        self.settings: Settings = config.load(store_path / "config.toml")
        self.store = Store(store_path, self.settings.lock_wait_s)
        self._reset()
        self._areas: dict[str, Area] = {}
        self._versions: dict[str, VersionList] = {}
        # Without remotes most commands need no cache: it is opened by the first that does.
        cache = Cache.open if self.settings.remotes else Cache
        self._cache = cache(
            self.settings.cache_dir,
            limit_bytes=self.settings.cache_size,
            free_floor_bytes=self.settings.cache_min_free,
        )
        self._standings = Standings(list(self.settings.remotes))
        self.reader = Reader(
            self.store,
            cache=self._cache,
            remote=self.remote,
            relearn=self._learn_packs,
            budget_bytes=self.settings.memory_budget,
            deadline_s=self.settings.deadline_s,
            standings=self._standings,
        )
        self.chunks = Reader(
            self.store,
            cache=self._cache,
            remote=self.remote,
            relearn=self._learn_packs,
            budget_bytes=min(self.settings.memory_budget, INGEST_BUDGET),
            deadline_s=self.settings.deadline_s,
            standings=self._standings,
        )
        self.objects = Objects(self.reader)
        orders = Orders(self.store.layout.orders, writable=os.access(store_path, os.W_OK))
        self._ahead = Prefetcher(self.reader, orders, self._far_limit)
        self._ahead_once = Prefetcher(self.chunks, None, self._far_limit)
        self._tier = Tier(
            self._cache.files,
            self.open_once,
            limit_bytes=self.settings.cache_size if self.settings.cache_files else 0,
        )
        _instances.add(self)

    def _reset(self) -> None:
        """A fresh lock and no remotes: two processes on one connection would get each other's answers."""
        self._guard = threading.RLock()
        self._remotes: dict[str, Remote] = {}

    def close(self) -> None:
        """Release files, connections and locks."""
        with self._guard:
            areas, self._areas = self._areas, {}
        for area in areas.values():
            area.close()
        # Threads end here, which may be asking for a remote: nothing that they need is held meanwhile.
        self._tier.close()
        self._ahead.close()
        self._ahead_once.close()
        self.reader.close()
        self.chunks.close()
        with self._guard:
            remotes, self._remotes = self._remotes, {}
        for remote in remotes.values():
            remote.close()
        self._cache.close()
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def remote(self, name: str) -> Remote:
        """The connection to a remote.

        Raises:
            RefNotFoundError: no such remote.
        """
        from shardfs.remotes import registry

        with self._guard:
            if name not in self._remotes:
                url = self.settings.remotes.get(name)
                if url is None:
                    msg = f"no remote {name!r}; `shardfs remote add {name} URL` makes one"
                    raise RefNotFoundError(msg)
                self._remotes[name] = registry.open_remote(url, name=name, settings=self.settings)
            return self._remotes[name]

    def expect(self, direction: Direction, size: int, remote: str | None = None) -> Expectation | None:
        """How long a transfer will take, by the last one of its kind and the limit of speed; None: neither is known.

        Args:
            direction: "received" or "sent".
            size: bytes.
            remote: its name; None: the one that is asked first.
        """
        from shardfs.transfer.speeds import Speeds, expectation

        urls = self.settings.remotes
        url = next(iter(urls.values()), None) if remote is None else urls.get(remote)
        speed = None if url is None else Speeds(self.store.layout).get(url, direction)
        return expectation(size, speed, self.settings.bwlimit)

    def when_damaged(self, tell: Callable[[str], None]) -> None:
        """Have one line told for each damaged copy that reads meet here, in the cache or at a remote, and go around."""
        self.reader.told = self.chunks.told = tell

    def open_once(self, entry: FileEntry) -> FileReader:
        """The content of a file that is read from front to back: few of its chunks stay in memory."""
        watch = self._ahead_once.watch
        return FileReader(entry, self.objects, self.chunks, watch, rescue=self._rescue, near=self._tier.chunk)

    def _rescue(self, entry: FileEntry, chunk: ChunkRef, offset: int, path: bytes = b"") -> bytes | None:
        """A chunk that cannot be read, from a plain file; offline it is said what of the file is missing."""
        data = self._tier.chunk(entry, chunk, offset)
        if data is None and self.settings.offline:
            from shardfs.transfer import absence

            manifest = manifest_of(entry, self.objects)
            error = absence.offline_error(path or entry.name, manifest, self.store.index, self._cache)
            if error is not None:
                raise error
        return data

    def _far_limit(self) -> int:
        return min(FAR, self.settings.memory_budget // 8) if self.settings.remotes else 0

    def _learn_packs(self, remote: str) -> None:
        from shardfs.transfer import fetch

        fetch.learn_packs(self.store, self.remote(remote), self.settings.deadline_s)

    def _writable(self) -> Store:
        if self.read_only:
            msg = f"{self.url or self.store_path} is read-only; clone it to make changes"
            raise ReadOnlyError(msg)
        return self.store


_instances: weakref.WeakSet[Wiring] = weakref.WeakSet()
_of_parents: list[object] = []  # kept: to let go of them may take locks of threads that do not exist here


def _after_fork() -> None:
    for wiring in list(_instances):
        _of_parents.append(wiring._remotes)
        wiring._reset()


os.register_at_fork(after_in_child=_after_fork)
