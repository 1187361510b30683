"""What opens a remote: where it is looked for, for which URL it is meant, and where it must not be sent.

The order: the URL itself, the environment, `credentials.toml` beside the user's settings. docs/how-to/remotes.md has
the user's view.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import threading
import time
from base64 import b64encode
from contextlib import suppress
from typing import Final, NamedTuple
from urllib.parse import unquote

from shardfs.errors import RemoteDeniedError, ShardfsError, UsageError
from shardfs.remotes import credentials_file
from shardfs.remotes.address import Address, address, is_web, split, without_login
from shardfs.remotes.credentials_file import Entry, check

TOKEN: Final = "SHARDFS_TOKEN"
TOKEN_URL: Final = "SHARDFS_TOKEN_URL"
HELPER_S: Final = 20.0  # a password manager may ask its user to touch a key
_RENEW_S: Final = 5.0  # between two looks for another token after a refusal


class Login(NamedTuple):
    """A secret, and who shows it.

    Attributes:
        token: shown as a bearer token, or as the password of `user`.
        user: None for a bearer token.
    """

    token: str
    user: str | None = None

    @property
    def header(self) -> str:
        """Value of the header Authorization."""
        if self.user is None:
            return f"Bearer {self.token}"
        return "Basic " + b64encode(f"{self.user}:{self.token}".encode()).decode("ascii")

    def __repr__(self) -> str:
        return "Login(***)"


class _Found(NamedTuple):
    """A login, and which one that is, for people."""

    login: Login
    source: str


class Authorization:
    """What to show at one URL; looked for when it is first needed. Safe to share between threads.

    Raises:
        UsageError: not a URL of a web server.
    """

    def __init__(self, url: str, entry: Entry | None = None) -> None:
        """Args: entry: what to show in place of what would be found."""
        self._place = address(url)
        self._from_url = _login_of(url)
        self._entry = entry
        self._guard = threading.Lock()
        self._known = False
        self._looked = float("-inf")
        self._header: str | None = None
        self._told = ""

    def header(self) -> str | None:
        """Value of the header Authorization; None to come without.

        Raises:
            RemoteDeniedError: the credentials file or the helper is of no use; one line says why.
        """
        with self._guard:
            if not self._known:
                self._look()
            return self._header

    def renew(self, refused: str | None) -> bool:
        """Look again after `refused` was not taken; whether there is something else to show now.

        Raises:
            RemoteDeniedError: as `header`.
        """
        with self._guard:
            if self._header != refused:
                return True
            if time.monotonic() - self._looked < _RENEW_S:
                return False
            self._look()
            return self._header != refused

    @property
    def told(self) -> str:
        """What it means that the server wants something else than was shown, and what to do."""
        return self._told

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            found, told = _search(self._place, self._from_url, self._entry)
        except RemoteDeniedError:
            raise
        except ShardfsError as error:
            raise RemoteDeniedError(str(error)) from error
        self._header = None if found is None else found.header
        self._told = told
        self._known = True


def authorization(url: str) -> str | None:
    """Value of the header Authorization for requests to a URL; None when there is no secret for it.

    Raises:
        RemoteDeniedError: the credentials file or the helper is of no use. UsageError: not a URL of a web server.
    """
    return Authorization(url).header()


def keep(url: str) -> str:
    """A URL without user and password, which are kept in the credentials file for it and for what is below it.

    Raises:
        UsageError: not a URL of a web server, or a secret that cannot be sent. StoreError, MalformedError: the
            credentials file cannot be read or written.
    """
    if not is_web(url):
        return url
    login = _login_of(url)
    if login is None:
        return url
    credentials_file.save(url, Entry(token=login.token, user=login.user))
    return without_login(url)


# Where secrets are looked for


def _search(place: Address, from_url: Login | None, given: Entry | None) -> tuple[Login | None, str]:
    """What to show at a place, and in words what a refusal of that means."""
    tables = _matching(place) if given is None else [(place, given)]
    found = None
    if from_url is not None:
        found = _Found(from_url, "that of the URL")
    elif given is None and (login := _from_environment(place)) is not None:
        found = _Found(login, f"that of {TOKEN}")
    else:
        found = _from_tables(place, tables)
    if found is None:
        if os.environ.get(TOKEN):
            return (
                None,
                f"it wants a token, and {TOKEN} is for what {TOKEN_URL} names; if that is here, set it to {place}",
            )
        return None, f"it wants a token; `shardfs login {place}` keeps one"
    if place.is_overheard and not any(entry.plain_http for _, entry in tables):
        return None, (
            f"it wants a token, and {found.source} is not sent over http, where everybody on the way can read it; "
            f"use https, or `shardfs login --plain-http {place}`"
        )
    if given is not None:
        return found.login, "it does not take this token"
    return found.login, f"it wants another token than {found.source}; `shardfs login {place}` keeps one"


def _from_tables(place: Address, tables: list[tuple[Address, Entry]]) -> _Found | None:
    for prefix, entry in tables:
        if entry.token is not None:
            return _Found(Login(entry.token, entry.user), f"that of {credentials_file.path().name}")
        if entry.helper is not None:
            return _Found(Login(_ask_helper(entry.helper, entry.user, prefix, place), entry.user), "that of the helper")
    return None


def _login_of(url: str) -> Login | None:
    parts = split(url)
    if parts.username is None:
        return None
    login = Login(unquote(parts.password or ""), unquote(parts.username))
    check(Entry(token=login.token, user=login.user))
    return login


def _from_environment(place: Address) -> Login | None:
    """The token of the environment, where the environment also says that it is for this place.

    A URL comes from anywhere: whoever can have somebody clone it would get a token that is meant for all of them.
    """
    token, meant = os.environ.get(TOKEN), os.environ.get(TOKEN_URL)
    if not token or not meant:
        return None
    try:
        check(Entry(token=token))
        is_meant = address(meant).covers(place)
    except UsageError as error:
        msg = f"{TOKEN_URL if 'URL' in str(error) else TOKEN}: {error}"
        raise UsageError(msg) from None
    return Login(token) if is_meant else None


def _matching(place: Address) -> list[tuple[Address, Entry]]:
    """Tables for a place, the nearest first."""
    found = [(prefix, entry) for prefix, entry in credentials_file.entries().items() if prefix.covers(place)]
    return sorted(found, key=lambda item: len(item[0].parts), reverse=True)


def _ask_helper(command: str, user: str | None, prefix: Address, place: Address) -> str:
    """The last line that a helper prints."""
    where = f"the helper for {prefix}"
    try:
        process = subprocess.Popen(
            shlex.split(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # may hold what must not be in a log
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        msg = f"{where} cannot be run: {getattr(error, 'strerror', None) or error}"
        raise RemoteDeniedError(msg) from error
    with process:
        try:
            said, _ = process.communicate(f"{place}\n".encode(), timeout=HELPER_S)
        except subprocess.TimeoutExpired:
            msg = f"{where} did not answer within {HELPER_S:g} s"
            raise RemoteDeniedError(msg) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        msg = f"{where} failed with status {process.returncode}; run it by hand"
        raise RemoteDeniedError(msg)
    lines = [line.strip() for line in said.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        msg = f"{where} printed nothing"
        raise RemoteDeniedError(msg)
    try:
        check(Entry(token=lines[-1], user=user))
    except UsageError as error:
        msg = f"{where}: {error}"
        raise RemoteDeniedError(msg) from None
    return lines[-1]
