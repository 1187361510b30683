"""The part of the facade that is about remotes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

from shardfs import config
from shardfs.caching import Caching
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES, REMOTES
from shardfs.history import branches
from shardfs.progress import Progress

if TYPE_CHECKING:
    from shardfs.transfer import fetch, pull, push


class Sharing(Caching):
    """What `Repository` does with remotes; it knows branches and the work tree."""

    @abstractmethod
    def _branch(self, name: str | None) -> str:
        """A branch of this repository, which must be writable; None: the current one."""

    @abstractmethod
    def _follow(self, branch: str, old: CommitId | None, new: CommitId) -> None:
        """Update unchanged files of the work tree before a branch moves; raises to stop that."""

    def remotes(self) -> dict[str, str]:
        """URLs by name."""
        return dict(self.settings.remotes)

    def add_remote(self, name: str, url: str) -> None:
        """Remember a remote. A password in the URL goes to the user's credentials file alone.

        Raises:
            UsageError: a bad name or URL. AlreadyExistsError: the name is taken.
        """
        from shardfs.remotes import credentials, registry

        registry.check_url(url)
        with self._writable().lock.hold("remote"):
            config.set_remote(self.store.layout.config, name, credentials.without_login(url))
        credentials.keep(url)
        self.settings = config.load(self.store_path / "config.toml")

    def remove_remote(self, name: str) -> None:
        """Forget a remote, its remote-tracking branches and what it holds. Raises RefNotFoundError."""
        with self._writable().lock.hold("remote"):
            config.set_remote(self.store.layout.config, name, None)
            branches.delete_all(self.store.refs, f"{REMOTES}{name}/")
            self.store.forget_place(name)
        with self._guard:
            connection = self._remotes.pop(name, None)
        if connection is not None:
            connection.close()
        self.settings = config.load(self.store_path / "config.toml")

    def fetch(
        self, remote: str = "origin", *, full: bool = False, prune: bool = False, progress: Progress | None = None
    ) -> fetch.FetchReport:
        """Get history and metadata of a remote (`full`: all bytes), move its remote-tracking branches."""
        from shardfs.transfer import fetch
        from shardfs.transfer.filters import Filter

        self._writable()
        wanted = Filter(everything=True) if full else None
        return fetch.fetch(
            self.store, self.remote(remote), wanted=wanted, prune=prune, others=self.remote, progress=progress
        )

    def pull(
        self, remote: str = "origin", branch: str | None = None, progress: Progress | None = None
    ) -> pull.PullReport:
        """Fetch, then move a branch forward to the remote's and update unchanged files of the work tree.

        Raises:
            NotFastForwardError: both have commits that the other lacks.
            RemoteProtocolError: not all that the remote's branch needs could be had.
        """
        from shardfs.transfer import pull

        name = self._branch(branch)
        self.fetch(remote, progress=progress).check_followed(self.store.refs, remote, BRANCHES + name)
        return pull.fast_forward(
            self.store,
            self.objects,
            remote,
            name,
            author=self.settings.author,
            before_move=lambda old, new: self._follow(name, old, new),
        )

    def push(
        self,
        remote: str = "origin",
        names: Sequence[str] = (),
        *,
        tags: bool = False,
        force: bool = False,
        progress: Progress | None = None,
    ) -> push.PushReport:
        """Send what a remote lacks of some branches (none: the current one), then move its refs."""
        from shardfs.transfer import push

        wanted = [self._branch(None)] if not names else list(names)
        updates = push.plan_updates(self.store.refs, self.remote(remote).name, wanted, tags=tags)
        return push.push(
            self.store, self.reader, self.objects, self.remote(remote), updates, force=force, progress=progress
        )

    def refresh(self) -> None:
        """Bring a view of a remote up to date; does nothing for other repositories, and offline where there is one."""
        is_shown = self.settings.offline and self.store.refs.names()
        if self.url is not None and not is_shown:
            from shardfs.transfer import mirror

            mirror.refresh(self.store, self.url, self.remote("origin"))
