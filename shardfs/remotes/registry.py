"""From a URL to a remote. A new kind of place is one file and one line here, or a package of somebody else."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from shardfs import config
from shardfs.config import Settings
from shardfs.errors import UsageError
from shardfs.remotes import plugins, throttle, tls
from shardfs.remotes.adaptive import MOST, AdaptiveRemote, Window
from shardfs.remotes.base import Remote
from shardfs.remotes.breaker import Breaker, GuardedRemote
from shardfs.remotes.counters import Counters
from shardfs.remotes.credentials import Authorization
from shardfs.remotes.directory import DirectoryRemote
from shardfs.remotes.flow import FlowingRemote
from shardfs.remotes.hedge import HedgedRemote
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.offline import OfflineRemote
from shardfs.remotes.retry import RetryingRemote
from shardfs.remotes.throttle import ThrottledRemote
from shardfs.remotes.timedsocket import Timeouts

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_remote(url: str, *, name: str = "origin", settings: Settings | None = None) -> Remote:
    """The remote at a URL, repeating what can be repeated. Nothing is connected to yet.

    Args:
        url: `http://`, `https://`, `s3://`, `gs://`, `az://` or `file://` URL, one of a scheme that an installed
            package adds, or a path; a path may be a project, whose `.shardfs` is meant.
        name: how the user calls the remote.
        settings: `deadline_s` counts: seconds that one call may wait in all, repeated attempts included; while they
            say `offline`, the remote refuses everything.

    Raises:
        UsageError: another scheme, or a URL with a part missing.
    """
    settings = settings or config.load(None)
    remote = _opener(url)(url, name, settings)
    if settings.offline:
        return OfflineRemote(remote)
    return _wrapped(remote, settings)


def _wrapped(remote: Remote, settings: Settings) -> Remote:
    """A remote with all that a link needs, from the wire to the caller."""
    counters, limit = Counters(), throttle.shared(settings.bwlimit)
    breaker = Breaker(settings.deadline_s, counters)
    window = Window(counters, MOST if limit is None else limit.requests)
    is_web = isinstance(remote, HttpRemote)
    if is_web:
        remote = HedgedRemote(remote, counters)
    remote = FlowingRemote(remote, counters.received, counters.sent)
    remote = RetryingRemote(GuardedRemote(remote, breaker, window.trouble), settings.deadline_s)
    if limit is not None and not is_web:
        remote = ThrottledRemote(remote, limit)
    return AdaptiveRemote(remote, window, breaker, counters)


def check_url(url: str) -> None:
    """Return if `open_remote` would take the URL.

    Raises:
        UsageError: another scheme, or a URL with a part missing.
    """
    _opener(url)(url, "check", config.load(None)).close()


def _opener(url: str) -> Callable[[str, str, Settings], Remote]:
    found = _SCHEME.match(url)
    scheme = found[1].lower() if found else "file"
    opener = _OPENERS.get(scheme) or plugins.find(scheme)
    if opener is None:
        known = ", ".join(f"{s}://" for s in _OPENERS)
        msg = f"remotes of kind {scheme}:// are not supported; use {known} or a path"
        raise UsageError(msg)
    return opener


def _open_directory(url: str, name: str, _: Settings) -> Remote:
    path = Path(url)
    if _SCHEME.match(url):
        parts = urlsplit(url)
        if parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            msg = f"{url} must look like file:///path"
            raise UsageError(msg)
        path = Path(unquote(parts.path))
    if not url or "\0" in str(path):
        msg = "the path of a remote is empty or has a NUL"
        raise UsageError(msg)
    root = path.expanduser().absolute()
    project = root / ".shardfs"
    return DirectoryRemote(project if (project / "config.toml").is_file() else root, name=name)


def open_web(url: str, name: str, settings: Settings, authorization: Authorization | None = None) -> HttpRemote:
    """The remote on a web server, without wrappers.

    Args:
        url: of the repository.
        name: how the user calls it.
        settings: time limits and certificates.
        authorization: what to show; None: what is found for the URL.

    Raises:
        UsageError: not such a URL.
    """
    usual, deadline_s = Timeouts(), settings.deadline_s
    timeouts = Timeouts(
        connect_s=min(usual.connect_s, deadline_s),
        answer_s=min(usual.answer_s, deadline_s),
        idle_s=min(usual.idle_s, deadline_s),
    )
    return HttpRemote(
        url,
        name=name,
        timeouts=timeouts,
        tls=tls.context(settings) if url.lower().startswith("https:") else None,
        authorization=authorization,
        throttle=throttle.shared(settings.bwlimit),
    )


def _open_object_store(url: str, name: str, settings: Settings) -> Remote:
    try:
        from shardfs.remotes.objectstore.places import open_object_store
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "obstore":
            raise
        msg = "remotes in object storage need a package more: pip install 'shardfs[s3]'"
        raise UsageError(msg) from error
    return open_object_store(url, name, settings)


_OPENERS: Final[dict[str, Callable[[str, str, Settings], Remote]]] = {
    "file": _open_directory,
    "http": open_web,
    "https": open_web,
    "s3": _open_object_store,
    "gs": _open_object_store,
    "az": _open_object_store,
}
