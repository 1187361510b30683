"""The part of the facade that is about remotes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shardfs import config
from shardfs.caching import Caching
from shardfs.errors import UsageError
from shardfs.formats.ids import CommitId
from shardfs.formats.ref import BRANCHES, REMOTES, TAGS
from shardfs.history import branches
from shardfs.progress import Progress, no_progress
from shardfs.wiring import remembers_speed

if TYPE_CHECKING:
    from shardfs.remotes.counters import RemoteCounts
    from shardfs.transfer import publish, published

    # Part of the facade: who shows the results names their types.
    from shardfs.transfer.fetch import FetchPlan as FetchPlan
    from shardfs.transfer.fetch import FetchReport as FetchReport
    from shardfs.transfer.filters import Filter
    from shardfs.transfer.pull import PullReport
    from shardfs.transfer.push import PushReport as PushReport
    from shardfs.transfer.survey import BranchState as BranchState
    from shardfs.transfer.survey import RemoteState as RemoteState


class Sharing(Caching):
    """What `Repository` does with remotes; it knows branches and the work tree."""

    @abstractmethod
    def _branch(self, name: str | None) -> str:
        """A branch of this repository, which must be writable; None: the current one."""

    @abstractmethod
    def _follow(self, branch: str, old: CommitId | None, new: CommitId) -> None:
        """Update unchanged files of the work tree before a branch moves; raises to stop that."""

    @abstractmethod
    def current_branch(self) -> str | None:
        """Short name of the branch that HEAD names; None when HEAD is detached."""

    def _remote_counts(self) -> RemoteCounts:
        """What became of requests to the remotes that were asked so far."""
        from shardfs.remotes import counters

        known = list(self._remotes.items())
        return counters.snapshot((name, remote.counters) for name, remote in known if hasattr(remote, "counters"))

    def remotes(self) -> dict[str, str]:
        """URLs by name, in the order in which they are asked."""
        return dict(self.settings.remotes)

    def add_remote(self, name: str, url: str) -> None:
        """Remember a remote. A password in the URL goes to the user's credentials file alone.

        Raises:
            UsageError: a bad name or URL. AlreadyExistsError: the name is taken.
        """
        from shardfs.remotes import address, credentials, registry

        registry.check_url(url)
        with self._writable().lock.hold("remote"):
            credentials.keep(url)  # first: what fails on the way can be done again
            config.set_remote(self.store.layout.config, name, address.without_login(url))
        self._reload()

    def remove_remote(self, name: str) -> None:
        """Forget a remote, its remote-tracking branches and what it holds. Raises RefNotFoundError."""

        def forget() -> None:
            branches.delete_all(self.store.refs, f"{REMOTES}{name}/")
            self.store.forget_place(name)

        with self._writable().lock.hold("remote"):
            config.remove_remote(self.store.layout.config, name, forget)
        self._reopen(name)

    def rename_remote(self, old: str, new: str) -> None:
        """Give a remote another name, with its remote-tracking branches and all that is known of it.

        Raises:
            RefNotFoundError: no such remote. AlreadyExistsError: the name is taken. UsageError: it is none.
        """

        def move() -> None:
            refs, index = self.store.refs, self.store.index
            for name, commit in refs.list(f"{REMOTES}{old}/").items():
                target = f"{REMOTES}{new}/{name.removeprefix(f'{REMOTES}{old}/')}"
                refs.move(target, refs.get(target), commit, message=f"remote: renamed {old}")
            branches.delete_all(refs, f"{REMOTES}{old}/")
            index.add_packs(((id_, size, ()) for id_, size in index.packs(old).items()), place=new)
            self.store.forget_place(old)

        with self._writable().lock.hold("remote"):
            config.rename_remote(self.store.layout.config, old, new, move)
        self._reopen(old)

    def set_remote_url(self, name: str, url: str) -> None:
        """Say where a remote is now. What was known of it is asked anew by the next fetch.

        Raises:
            RefNotFoundError: no such remote. UsageError: a bad URL.
        """
        from shardfs.remotes import address, credentials, registry

        registry.check_url(url)
        with self._writable().lock.hold("remote"):
            credentials.keep(url)
            config.set_remote_url(self.store.layout.config, name, address.without_login(url))
        self._reopen(name)

    def prefer_remote(self, name: str) -> None:
        """Have a remote asked before all others from now on. Raises RefNotFoundError."""
        with self._writable().lock.hold("remote"):
            config.prefer_remote(self.store.layout.config, name)
        self._reopen(name)

    def set_filters(self, remote: str, words: Sequence[str]) -> None:
        """Say what fetches from a remote keep to, in the words of `clone`. Raises RefNotFoundError."""
        with self._writable().lock.hold("remote"):
            config.set_filters(self.store.layout.config, remote, words)
        self._reload()

    def set_upstream(self, branch: str, remote: str) -> None:
        """Remember which remote a branch (short name) is pulled from. Raises RefNotFoundError."""
        with self._writable().lock.hold("remote"):
            config.set_upstream(self.store.layout.config, self._branch(branch), remote)
        self._reload()

    def upstream(self, branch: str | None = None) -> str:
        """Name of the remote that a branch (None: the current one) is pulled from: its own, else `default_remote`.

        Raises:
            UsageError: there are several, and nothing says which.
        """
        found = self.settings.upstreams.get(branch or self.current_branch() or "")
        return found if found is not None and found in self.settings.remotes else self.default_remote()

    def remote_state(self, name: str) -> RemoteState:
        """What a remote has now beside what is here; asks it. Raises RefNotFoundError: no such remote."""
        from shardfs.transfer import survey

        return survey.survey(self.store, self.objects, self.remote(name))

    @remembers_speed
    def fetch(
        self,
        remote: str | None = None,
        places: Sequence[tuple[str, str]] = (),
        *,
        full: bool = False,
        tensors: str | None = None,
        prune: bool = False,
        progress: Progress | None = None,
    ) -> FetchReport:
        """Get history and metadata of a remote, move its remote-tracking branches, and copy contents into packs here.

        Args:
            remote: its name; None for the current branch's.
            places: revisions and paths whose contents are copied.
            full: copy all contents. Without places and this, those that the filters of the clone pick are.
            tensors: pattern of names; of the places only the chunks of these tensors are copied.
            prune: delete remote-tracking branches that are gone at the remote.
            progress: called with bytes done, bytes in all and a name.

        Returns:
            What was done. What is damaged at the remote, or missing there, is in `lost`; all else came.

        Raises:
            RemoteError, RepositoryNotFoundError: by the remote; what came stays. RevisionNotFoundError,
                PathNotFoundError: no such place. OutOfSpaceError: the contents do not fit.
        """
        from shardfs.transfer import contents, fetch

        self._writable()
        name, tell = remote or self.upstream(), progress or no_progress
        wanted = self._wanted(name, full=full)
        report = fetch.fetch(
            self.store,
            self.remote(name),
            wanted=wanted,
            prune=prune,
            others=self.remote,
            keep=lambda ids: contents.keep(self.store, self.chunks, ids, tell).errors,
            progress=progress,
        )
        ids: Iterable[bytes] = ()
        if places:
            ids = self._chunks_at(places, tensors)
        elif wanted.picks:  # with whole packs, what this remote has lost and others have
            ids = fetch.picked(self.objects, report.complete, wanted)
        kept = contents.keep(self.store, self.chunks, ids, tell)
        report.kept, report.kept_bytes = kept.chunks, kept.bytes
        known = {str(error) for error in report.lost}
        report.lost += [error for error in kept.errors if str(error) not in known]
        report.check_answered()
        return report

    def plan_fetch(
        self,
        remote: str | None = None,
        places: Sequence[tuple[str, str]] = (),
        *,
        full: bool = False,
        tensors: str | None = None,
        prune: bool = False,
    ) -> FetchPlan:
        """What `fetch` would do, with the same arguments; changes nothing here. What filters pick is not counted."""
        from shardfs.transfer import contents, fetch

        name = remote or self.upstream()
        planned = fetch.plan_fetch(self.store, self.remote(name), wanted=self._wanted(name, full=full), prune=prune)
        lack = contents.lack(self._chunks_at(places, tensors), self.store.index, None)
        return planned._replace(contents=lack.chunks, contents_bytes=lack.bytes)

    def pull(
        self, remote: str | None = None, branch: str | None = None, progress: Progress | None = None
    ) -> PullReport:
        """Fetch, then move a branch forward to the remote's and update unchanged files of the work tree.

        Args:
            remote: its name; None for the branch's.
            branch: short name; None for the current one.
            progress: called with bytes done, bytes in all and a name.

        Raises:
            NotFastForwardError: both have commits that the other lacks.
            RemoteProtocolError: not all that the remote's branch needs could be had.
        """
        from shardfs.transfer import pull

        name = self._branch(branch)
        source = remote or self.upstream(name)
        self.fetch(source, progress=progress).check_followed(source, BRANCHES + name)
        return pull.fast_forward(
            self.store,
            self.objects,
            source,
            name,
            author=self.settings.author,
            before_move=lambda old, new: self._follow(name, old, new),
        )

    def default_remote(self) -> str:
        """Name of the remote that is pushed to when none is named: `remote.default`, else origin, or the only one.

        Raises:
            UsageError: there are several, and nothing says which.
        """
        names = list(self.settings.remotes)
        chosen = self.settings.default_remote or ("origin" if "origin" in names or not names else names[0])
        if not self.settings.default_remote and chosen != "origin" and len(names) > 1:
            msg = f"there are several remotes ({', '.join(names)}): name one, or set remote.default"
            raise UsageError(msg)
        return chosen

    @remembers_speed
    def push(  # noqa: PLR0913 - options by keyword
        self,
        remote: str | None = None,
        names: Sequence[str] = (),
        *,
        tags: bool = False,
        force: bool = False,
        mirror: bool = False,
        dry_run: bool = False,
        set_upstream: bool = False,
        progress: Progress | None = None,
    ) -> PushReport:
        """Send what a remote lacks of some branches and tags, then move its refs.

        Args:
            remote: its name; None: that of `default_remote`.
            names: names of branches and tags, or patterns such as "exp/*"; ":name" deletes one at the remote. None:
                the current branch.
            tags: all tags, too.
            force: move branches of the remote even if they lose commits, and tags.
            mirror: all branches and tags instead, by force; what the remote has beside them is deleted there.
            dry_run: only say what would be done, to the byte; nothing is sent.
            set_upstream: the branches are pulled from this remote from now on.
            progress: told the bytes sent and to send.

        Raises:
            NotFastForwardError: a ref would lose commits; nothing was sent. RefChangedError: it moved meanwhile.
            RemoteError: run the same push again, it sends only what is still missing.
        """
        from shardfs.transfer import push

        connection = self.remote(remote or self.default_remote())
        refs = self.store.refs
        if mirror:
            updates = [
                push.RefUpdate(name, refs.get(name)) for name in sorted({**refs.list(BRANCHES), **refs.list(TAGS)})
            ]
        else:
            wanted = [self._branch(None)] if not names else list(names)
            updates = push.plan_updates(refs, connection.name, wanted, tags=tags)
        report = push.push(
            self.store,
            self.reader,
            self.objects,
            connection,
            updates,
            force=force or mirror,
            prune=mirror,
            dry_run=dry_run,
            progress=progress,
        )
        if set_upstream and not dry_run:
            self._set_upstreams(connection.name, [update.name for update in updates if update.new is not None])
        return report

    def _set_upstreams(self, remote: str, names: Sequence[str]) -> None:
        with self._writable().lock.hold("push"):
            for name in names:
                if name.startswith(BRANCHES):
                    config.set_upstream(self.store.layout.config, name.removeprefix(BRANCHES), remote)
        self._reload()

    def refresh(self) -> None:
        """Bring a view of a remote up to date; does nothing for other repositories, and offline where there is one."""
        is_shown = self.settings.offline and self.store.refs.names()
        if self.url is not None and not is_shown:
            from shardfs.transfer import mirror

            mirror.refresh(self.store, self.url, self.remote("origin"))

    def publish(
        self, folder: Path, *, keep_s: float = 3600.0, progress: Progress | None = None
    ) -> publish.PublishReport:
        """Make a folder a copy of this repository that any web server can serve, for reading.

        Args:
            folder: made when missing; else one that was published to before. Readers find a whole repository in it
                at every moment.
            keep_s: seconds that packs stay after they were listed for the last time.
            progress: told the packs that are there and all.

        Raises:
            UsageError: the folder holds something else, or this is a lazy clone.
            LockedError, OutOfSpaceError, ReadOnlyError, StoreError: readers see what they saw before.
        """
        from shardfs.transfer import publish

        return publish.publish(self.store, folder, keep_s=keep_s, read_only=self.read_only, progress=progress)

    @staticmethod
    def check_published(folder: Path, progress: Progress | None = None) -> published.PublishedReport:
        """Read every byte of a folder that was published to, and look for all that its branches and tags need.

        Raises:
            RepositoryNotFoundError: nothing was published there. MalformedError: a listing is damaged.
        """
        from shardfs.transfer import published

        return published.check_published(folder, progress)

    def _reopen(self, name: str) -> None:
        """Use the settings as they are now, and no connection that was made by other ones."""
        with self._guard:
            connection = self._remotes.pop(name, None)
        if connection is not None:
            connection.close()
        self._reload()

    def _reload(self) -> None:
        """Use the settings as they are now."""
        self.settings = config.load(self.store_path / "config.toml")
        self._standings.reorder(list(self.settings.remotes))

    def _wanted(self, remote: str, *, full: bool) -> Filter:
        from shardfs.transfer import filters

        wanted = filters.parse(self.settings.filters.get(remote, ()))
        return filters.Filter(everything=True, branches=wanted.branches) if full else wanted

    def _chunks_at(self, places: Sequence[tuple[str, str]], tensors: str | None) -> set[bytes]:
        return {id_ for rev, path in places for id_ in self._picked(rev, path, tensors).chunks}
