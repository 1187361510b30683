"""The file `credentials.toml` of a user: a table for each URL, readable by nobody else.

```toml
["https://models.example.org/team"]
token = "..."

["https://other.example.org:8443"]
helper = "pass show models"
```
"""

from __future__ import annotations

import fcntl
import os
import stat
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from shardfs import config
from shardfs.errors import MalformedError, RefNotFoundError, StoreError, UsageError
from shardfs.remotes.address import Address, address, split
from shardfs.store import atomic

_KEYS: Final = frozenset({"token", "user", "helper", "plain_http"})


class Entry(NamedTuple):
    """One table of the file.

    Attributes:
        token: the secret itself.
        user: see `Login`.
        helper: a command that prints the secret, in place of `token`.
        plain_http: the secret may be sent over http, where everybody on the way can read it.
    """

    token: str | None = None
    user: str | None = None
    helper: str | None = None
    plain_http: bool = False

    def __repr__(self) -> str:
        return "Entry(***)"


def path() -> Path:
    """Where it is; it need not exist."""
    return config.user_file().with_name("credentials.toml")


def save(url: str, entry: Entry) -> None:
    """Write what opens a URL, and all below it; what was there for it is replaced.

    Raises:
        UsageError: a URL or secret of the wrong form. StoreError, MalformedError: the file cannot be read or written;
            it is as it was.
    """
    place = address(url)
    check(entry)
    _change(place, {name: value for name, value in entry._asdict().items() if value not in (None, False)})


def forget(url: str) -> None:
    """Take what opens a URL out of the file.

    Raises:
        RefNotFoundError: there is no table for exactly this URL. UsageError, StoreError, MalformedError: as `save`.
    """
    _change(address(url), None)


def entries() -> dict[Address, Entry]:
    """All tables.

    Raises:
        StoreError: it cannot be read, or others can read it. MalformedError: it has another form.
    """
    where = path()
    try:
        with where.open("rb") as opened:
            mode = stat.S_IMODE(os.fstat(opened.fileno()).st_mode)
            if mode & 0o077:
                msg = f"{where} can be used by others (mode {mode:o}); make it yours alone: chmod 600 {where}"
                raise StoreError(msg)
            tables = tomllib.loads(opened.read().decode("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        msg = f"{where} cannot be read: {error.strerror}"
        raise StoreError(msg) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError):
        # What is wrong may be the secret: the parser's words are left out.
        msg = f"{where} is not TOML; correct it with an editor"
        raise MalformedError(msg) from None
    return {_prefix(where, url): _entry(where, url, table) for url, table in tables.items()}


def _prefix(where: Path, url: str) -> Address:
    try:
        if split(url).username is None:
            return address(url)
        msg = f"{where}: a user belongs into the table, not into its URL"
        raise MalformedError(msg)
    except UsageError as error:
        msg = f'{where}: a table must be named by a URL, ["https://host/path"]: {error}'
        raise MalformedError(msg) from None


def _entry(file: Path, url: str, table: Any) -> Entry:
    where = f"{file}, table {url}"
    if not isinstance(table, dict) or not table.keys() <= _KEYS:
        msg = f"{where}: there can be {', '.join(sorted(_KEYS))} in it"
        raise MalformedError(msg)
    texts = all(isinstance(value, str) for key, value in table.items() if key != "plain_http")
    if not texts or not isinstance(table.get("plain_http", False), bool):
        msg = f"{where}: a value is of the wrong kind"
        raise MalformedError(msg)
    entry = Entry(**table)
    try:
        check(entry)
    except UsageError as error:
        msg = f"{where}: {error}"
        raise MalformedError(msg) from None
    return entry


def check(entry: Entry) -> None:
    """Return if an entry can be kept, and sent in a header as it is.

    Raises:
        UsageError: else; the message holds nothing of the secret.
    """
    if entry.token is not None and entry.helper is not None:
        msg = "there is a token and a helper"
        raise UsageError(msg)
    bearer = entry.token if entry.user is None else None
    if bearer is not None and (not bearer or not all("!" <= c <= "~" for c in bearer)):
        msg = "a token consists of printable ASCII characters without blanks"
        raise UsageError(msg)
    pair = f"{entry.user or ''}{entry.token or ''}"
    if not pair.isprintable() or ":" in (entry.user or ""):
        msg = "a user or password has characters that cannot be sent"
        raise UsageError(msg)


def _change(place: Address, values: Mapping[str, object] | None) -> None:
    """Replace the table of a place in the file, or take it out; the file is written whole or not at all."""
    import tomlkit

    with _locked():
        known, where = entries(), path()
        document = tomlkit.parse(where.read_text("utf-8")) if where.exists() else tomlkit.document()
        written = [url for url in document if address(url) == place]
        if values is None and not written:
            above = max((prefix for prefix in known if prefix.covers(place)), key=lambda p: len(p.parts), default=None)
            hint = f"; there is one for {above}" if above is not None else ""
            msg = f"no token is kept for {place}{hint}"
            raise RefNotFoundError(msg)
        for url in written:
            del document[url]
        if values is not None:
            table = tomlkit.table()
            table.update(values)
            document[str(place)] = table
        _write(where, tomlkit.dumps(document).encode())


def _write(where: Path, data: bytes) -> None:
    temp = where.with_name(f".{where.name}.new")  # one name: a killed writer leaves no secret that nobody finds
    with atomic.writing(f"cannot write {where}"):
        try:
            temp.unlink(missing_ok=True)
            descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            atomic.publish(temp, where)
        finally:
            with suppress(OSError):
                temp.unlink()


@contextmanager
def _locked() -> Iterator[None]:
    """Nobody else of this user changes the file meanwhile."""
    folder = path().parent
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        msg = f"{folder} cannot be used: {error.strerror}"
        raise StoreError(msg) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
