"""What opens remotes: keep a token for a URL, forget it."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from shardfs import config

if TYPE_CHECKING:
    from shardfs.remotes.credentials_file import Entry


class Verdict(Enum):
    """What a server made of a token that it was shown."""

    TAKEN = "taken"  # it lets nobody read without one
    NOT_NEEDED = "not needed"  # it lets everybody read; one that knows no tokens takes any
    UNKNOWN = "unknown"  # it has no repository at the URL, and may not have looked at it


def login(
    url: str,
    token: str | None = None,
    *,
    user: str | None = None,
    helper: str | None = None,
    plain_http: bool = False,
) -> Verdict:
    """Try a token with one request, then keep it for a URL and all below it, readable by this user alone.

    Args:
        url: http or https address of a server, of a folder of repositories or of one.
        token: the secret; None with `helper`.
        user: show the token as the password of this user, for servers that want that.
        helper: a command that prints the token each time it is needed; it gets the URL on standard input.
        plain_http: the token may be sent over http to another machine, where everybody on the way can read it.

    Raises:
        UsageError: a URL or token of the wrong form. RemoteLoginError: the server does not take the token.
        RemoteError: it cannot be asked. StoreError, MalformedError: the file cannot be read or written.
            Nothing was kept.
    """
    from shardfs.errors import UsageError
    from shardfs.remotes import credentials_file
    from shardfs.remotes.address import address, without_login

    if without_login(url) != url:
        msg = "the URL holds a user or password, which others can see; use --user, and type the password"
        raise UsageError(msg)
    if address(url).is_overheard and not plain_http:
        msg = "a token is not sent over http, where everybody on the way can read it; use https, or --plain-http"
        raise UsageError(msg)
    entry = credentials_file.Entry(token, user, helper, plain_http)
    credentials_file.check(entry)
    verdict = _try(url, entry)
    if verdict is Verdict.UNKNOWN:
        verdict = _try(f"{url.rstrip('/')}/any", entry)
    credentials_file.save(url, entry)
    return verdict


def logout(url: str) -> None:
    """Forget the token that is kept for a URL.

    Raises:
        RefNotFoundError: none is kept for exactly this URL. UsageError, StoreError, MalformedError: as `login`.
    """
    from shardfs.remotes import credentials_file

    credentials_file.forget(url)


def _try(url: str, entry: Entry) -> Verdict:
    """What the answers to a question at a URL, with a token and without, say of it.

    A server says whom it lets in before it says what there is, but below names that repositories can have only.

    Raises:
        RemoteLoginError: it does not take what is shown. RemoteError: it cannot be asked.
    """
    from shardfs.errors import RemoteLoginError, RemotePermissionError, RepositoryNotFoundError
    from shardfs.remotes.credentials_file import Entry

    otherwise = Verdict.TAKEN
    try:
        _ask(url, entry)
    except RemotePermissionError:
        return Verdict.TAKEN
    except RepositoryNotFoundError:
        otherwise = Verdict.UNKNOWN
    try:
        _ask(url, Entry())
    except RemoteLoginError:
        return Verdict.TAKEN
    except (RemotePermissionError, RepositoryNotFoundError):
        return otherwise
    return Verdict.NOT_NEEDED


def _ask(url: str, entry: Entry) -> None:
    from shardfs.remotes import registry
    from shardfs.remotes.credentials import Authorization
    from shardfs.remotes.retry import RetryingRemote

    settings = config.load(None)
    web = registry.open_web(url, "server", settings, Authorization(url, entry))
    remote = RetryingRemote(web, settings.deadline_s)
    try:
        remote.refs()
    finally:
        remote.close()
