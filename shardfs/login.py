"""What opens remotes: keep a token for a URL, forget it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardfs import config

if TYPE_CHECKING:
    from shardfs.remotes.credentials_file import Entry


def login(
    url: str,
    token: str | None = None,
    *,
    user: str | None = None,
    helper: str | None = None,
    plain_http: bool = False,
) -> bool:
    """Try a token with one request, then keep it for a URL and all below it, readable by this user alone.

    Args:
        url: http or https address of a server, of a folder of repositories or of one.
        token: the secret; None with `helper`.
        user: show the token as the password of this user, for servers that want that.
        helper: a command that prints the token each time it is needed; it gets the URL on standard input.
        plain_http: the token may be sent over http to another machine, where everybody on the way can read it.

    Returns:
        Whether the server judged the token; one that has no repository at the URL may not look at it.

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
    is_judged = _is_judged(url, entry) or _is_judged(f"{url.rstrip('/')}/any", entry)
    credentials_file.save(url, entry)
    return is_judged


def logout(url: str) -> None:
    """Forget the token that is kept for a URL.

    Raises:
        RefNotFoundError: none is kept for exactly this URL. UsageError, StoreError, MalformedError: as `login`.
    """
    from shardfs.remotes import credentials_file

    credentials_file.forget(url)


def _is_judged(url: str, entry: Entry) -> bool:
    """Whether the answer to a question at a URL depends on what is shown.

    A server says whom it lets in before it says what there is, but below names that repositories can have only.

    Raises:
        RemoteLoginError: it does not take what is shown. RemoteError: it cannot be asked.
    """
    from shardfs.errors import RemoteLoginError, RemotePermissionError, RepositoryNotFoundError
    from shardfs.remotes.credentials_file import Entry

    try:
        _ask(url, entry)
    except RepositoryNotFoundError:
        try:
            _ask(url, Entry())
        except RemoteLoginError:
            return True
        except (RemotePermissionError, RepositoryNotFoundError):
            return False
    except RemotePermissionError:
        pass
    return True


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
