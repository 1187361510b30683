"""Settings: a user file, the store's `config.toml`, and `SHARDFS_*` in the environment, in rising order of weight.

What each means: docs/reference/settings.md.
"""

from __future__ import annotations

import getpass
import os
import re
import socket
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from shardfs import budget
from shardfs.errors import AlreadyExistsError, MalformedError, RefNotFoundError, StoreError, UsageError

FORMAT: Final = 1  # version of the store layout that this program reads and writes
KEYS: Final[Mapping[str, str]] = {
    "user.author": "author",
    "cache.dir": "cache_dir",
    "cache.size": "cache_size",
    "cache.min_free": "cache_min_free",
    "cache.files": "cache_files",
    "memory.budget": "memory_budget",
    "remote.deadline": "deadline_s",
    "remote.default": "default_remote",
    "remote.order": "remote_order",
    "remote.offline": "offline",
    "remote.bwlimit": "bwlimit",
    "remote.ca_file": "ca_file",
    "remote.client_cert": "client_cert",
    "lock.wait": "lock_wait_s",
    "store.chain_depth": "chain_depth",
}
"""Keys of settings files and the attributes of `Settings` that hold their values."""

_UNITS: Final = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
MAX_CHAIN_DEPTH: Final = 16  # what every reader follows; codecs.base.MAX_BASE_DEPTH
MAX_SIZE: Final = 1 << 60  # bytes; more is a mistake, and does not fit where sizes go
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?B?)", re.IGNORECASE)
_REMOTE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class Settings:
    """Typed settings of one store; sizes are bytes. See docs/reference/settings.md.

    `remotes` are URLs by name, in the order in which they are asked; `filters` are what `clone` wrote down, by remote;
    `upstreams` are the remotes that branches are pulled from, by short name.
    """

    author: str
    cache_dir: Path
    cache_size: int = 10 << 30
    cache_min_free: int = 2 << 30
    cache_files: bool = True
    memory_budget: int = field(default_factory=budget.default)
    deadline_s: float = 30.0
    lock_wait_s: float = 120.0
    chain_depth: int = 8
    offline: bool = False
    default_remote: str = ""
    remote_order: str = ""
    bwlimit: int = 0
    ca_file: str = ""
    client_cert: str = ""
    remotes: Mapping[str, str] = field(default_factory=dict)
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    upstreams: Mapping[str, str] = field(default_factory=dict)


def user_file() -> Path:
    """The settings file of this user; it need not exist."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "shardfs" / "config.toml"


def cache_home() -> Path:
    """The directory below which all caches of this user are."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shardfs"


def load(store_file: Path | None) -> Settings:
    """The settings of a store (None: those of no store).

    Raises:
        MalformedError: a file is not TOML, or a value has the wrong form.
        StoreError: a file cannot be read.
    """
    merged: dict[str, Any] = {}
    for path in (user_file(), store_file):
        if path is None:
            continue
        with suppress(FileNotFoundError, NotADirectoryError):
            for section, values in _tables(path).items():
                if isinstance(values, dict):
                    merged.setdefault(section, {}).update(values)
    return _typed(merged)


def read(path: Path) -> dict[str, Any]:
    """The raw tables of one settings file.

    Raises:
        MalformedError: not TOML. StoreError: unreadable or not there.
    """
    try:
        return _tables(path)
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise StoreError(msg) from error


def _tables(path: Path) -> dict[str, Any]:
    """As `read`, but a file that is not there is the caller's case."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not TOML: {error}; correct it with an editor"
        raise MalformedError(msg) from error
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        msg = f"{path} cannot be read: {error.strerror}"
        raise StoreError(msg) from error


def parse_size(text: str | int) -> int:
    """Bytes of "10GiB", "500M", "4096" (powers of 1024).

    Raises:
        UsageError: another form.
    """
    found = _SIZE.fullmatch(str(text).strip())
    size = -1.0 if found is None else float(found[1]) * (1 << _UNITS[found[2].upper()])
    if not 0 <= size < MAX_SIZE:
        msg = f"not a size: {text!r}; write bytes or a number with K, M, G or T"
        raise UsageError(msg)
    return int(size)


def check_remote_name(name: str) -> str:
    """`name` if it can name a remote.

    Raises:
        UsageError: else.
    """
    if not _REMOTE_NAME.fullmatch(name) or f"remote.{name}" in KEYS:
        msg = f"not a remote name: {name!r}; use letters, digits, '-' and '_', and not the name of a setting"
        raise UsageError(msg)
    return name


def _typed(raw: dict[str, Any], environment: Mapping[str, str] = os.environ) -> Settings:
    def value(section: str, key: str, variable: str) -> Any:
        return environment.get(variable, raw.get(section, {}).get(key))

    changes: dict[str, Any] = {}
    sizes = {
        "cache_size": ("cache", "size", "SHARDFS_CACHE_SIZE"),
        "cache_min_free": ("cache", "min_free", "SHARDFS_CACHE_MIN_FREE"),
        "memory_budget": ("memory", "budget", "SHARDFS_MEMORY_BUDGET"),
        "bwlimit": ("remote", "bwlimit", "SHARDFS_BWLIMIT"),
    }
    seconds = {
        "deadline_s": ("remote", "deadline", "SHARDFS_DEADLINE"),
        "lock_wait_s": ("lock", "wait", "SHARDFS_LOCK_WAIT"),
    }
    for name, place in sizes.items():
        if (found := value(*place)) is not None:
            changes[name] = parse_size(found)
    for name, place in seconds.items():
        if (found := value(*place)) is not None:
            changes[name] = _seconds(found, place[2])
    if (found := value("cache", "files", "SHARDFS_CACHE_FILES")) is not None:
        changes["cache_files"] = _switch(found, "cache.files")
    if (found := value("remote", "offline", "SHARDFS_OFFLINE")) is not None:
        changes["offline"] = _switch(found, "remote.offline")
    if (found := value("store", "chain_depth", "SHARDFS_CHAIN_DEPTH")) is not None:
        changes["chain_depth"] = _depth(found)
    cache_dir = _text(value("cache", "dir", "SHARDFS_CACHE_DIR"), "cache.dir")
    order = _text(value("remote", "order", "SHARDFS_REMOTE_ORDER"), "remote.order") or ""
    return Settings(
        author=_text(value("user", "author", "SHARDFS_AUTHOR"), "user.author") or _default_author(),
        cache_dir=Path(cache_dir).expanduser() if cache_dir else cache_home() / "chunks",
        default_remote=_text(value("remote", "default", "SHARDFS_REMOTE"), "remote.default") or "",
        remote_order=order,
        ca_file=_text(value("remote", "ca_file", "SHARDFS_CA_FILE"), "remote.ca_file") or "",
        client_cert=_text(value("remote", "client_cert", "SHARDFS_CLIENT_CERT"), "remote.client_cert") or "",
        remotes=_ordered(_remotes(raw.get("remote", {})), order),
        filters=_filters(raw.get("remote", {})),
        upstreams=_upstreams(raw.get("branch", {})),
        **changes,
    )


def _text(value: object, key: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    msg = f"{key}: not a text: {value!r}"
    raise UsageError(msg)


def _seconds(value: object, name: str) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = -1.0
    if not 0 < number < 1e6:
        msg = f"{name}: not a number of seconds: {value!r}"
        raise UsageError(msg)
    return number


def _switch(value: object, key: str) -> bool:
    text = str(value).lower()
    if text not in ("true", "false", "1", "0"):
        msg = f"{key}: not true or false: {value!r}"
        raise UsageError(msg)
    return text in ("true", "1")


def _depth(value: object) -> int:
    text = str(value)
    if not text.isdecimal() or int(text) > MAX_CHAIN_DEPTH:
        msg = f"store.chain_depth: not a number from 0 to {MAX_CHAIN_DEPTH}: {value!r}"
        raise UsageError(msg)
    return int(text)


def _remotes(tables: object) -> dict[str, str]:
    if not isinstance(tables, dict):
        return {}
    return {
        name: table["url"]
        for name, table in tables.items()
        if isinstance(table, dict) and isinstance(table.get("url"), str) and _REMOTE_NAME.fullmatch(name)
    }


def _ordered(remotes: dict[str, str], order: str) -> dict[str, str]:
    """Remotes as they are asked: first those that `remote.order` names, then the others as they were added."""
    named = [name for part in order.split(",") if (name := part.strip()) in remotes]
    return {name: remotes[name] for name in [*named, *remotes]}


def _filters(tables: object) -> dict[str, tuple[str, ...]]:
    if not isinstance(tables, dict):
        return {}
    found = {}
    for name, table in tables.items():
        words = table.get("filter", []) if isinstance(table, dict) else []
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            # To pass over it would be to follow and copy what nobody wants here.
            msg = f'filter of remote {name!r}: not a list of texts: {words!r}; write filter = ["path=GLOB"]'
            raise UsageError(msg)
        if words:
            found[name] = tuple(words)
    return found


def _upstreams(tables: object) -> dict[str, str]:
    if not isinstance(tables, dict):
        return {}
    return {
        name: table["remote"]
        for name, table in tables.items()
        if isinstance(table, dict) and isinstance(table.get("remote"), str)
    }


def _default_author() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user} <{user}@{socket.gethostname()}>"


def set_remote(path: Path, name: str, url: str) -> None:
    """Add a remote to a settings file. Comments in the file are kept.

    Raises:
        UsageError: not a remote name. AlreadyExistsError: it is there. MalformedError: the file is not TOML.
        StoreError: it cannot be read or written; it is as it was.
    """
    check_remote_name(name)
    _check_text(url)
    with _editing(path) as document:
        remotes = _section(document, "remote")
        if name in remotes:
            msg = f"remote {name!r} exists already: {remotes[name].get('url')}"
            raise AlreadyExistsError(msg)
        remotes[name] = {"url": url}


def remove_remote(path: Path, name: str, first: Callable[[], object] = lambda: None) -> None:
    """Take a remote out of a settings file with all that is said about it.

    Args:
        path: the file.
        name: of the remote.
        first: done before the file changes, so that who was killed meanwhile can do the same again.

    Raises:
        RefNotFoundError: no such remote. MalformedError, StoreError: as `set_remote`. What `first` raises.
    """
    with _editing(path) as document:
        remotes = _section(document, "remote")
        _remote_table(remotes, name)
        first()
        del remotes[name]
        for branch in [b for b, table in document.get("branch", {}).items() if table.get("remote") == name]:
            del document["branch"][branch]
        _set_order(document, lambda order: [other for other in order if other != name])


def set_remote_url(path: Path, name: str, url: str) -> None:
    """Change the URL of a remote; errors as `remove_remote`."""
    _check_text(url)
    with _editing(path) as document:
        _remote_table(_section(document, "remote"), name)["url"] = url


def rename_remote(path: Path, old: str, new: str, first: Callable[[], object] = lambda: None) -> None:
    """Give a remote another name wherever a settings file names it; arguments and errors as those two."""
    check_remote_name(new)
    with _editing(path) as document:
        remotes = _section(document, "remote")
        if new in remotes:
            msg = f"remote {new!r} exists already: {remotes[new].get('url')}"
            raise AlreadyExistsError(msg)
        table_of_old = _remote_table(remotes, old)
        first()
        remotes[new] = dict(table_of_old.unwrap())
        del remotes[old]
        for table in document.get("branch", {}).values():
            if table.get("remote") == old:
                table["remote"] = new
        _set_order(document, lambda order: [new if other == old else other for other in order])


def prefer_remote(path: Path, name: str) -> None:
    """Have a remote asked before all others; errors as `remove_remote`."""
    with _editing(path) as document:
        _remote_table(_section(document, "remote"), name)
        _set_order(document, lambda order: [name, *(other for other in order if other != name)])


def set_filters(path: Path, name: str, filters: Sequence[str]) -> None:
    """Write down what `fetch` brings from a remote; nothing takes it out. Errors as `remove_remote`."""
    with _editing(path) as document:
        table = _remote_table(_section(document, "remote"), name)
        table.pop("filter", None)
        if filters:
            table["filter"] = list(filters)


def set_upstream(path: Path, branch: str, remote: str) -> None:
    """Write down which remote a branch (short name) is pulled from; errors as `remove_remote`."""
    with _editing(path) as document:
        _remote_table(_section(document, "remote"), remote)
        branches = _section(document, "branch")
        if branches.get(branch, {}).get("remote") != remote:
            branches[branch] = {"remote": remote}


def _section(document: Any, name: str) -> Any:
    import tomlkit

    return document.setdefault(name, tomlkit.table(is_super_table=True))


def _remote_table(remotes: Any, name: str) -> Any:
    if not isinstance(remotes.get(name), dict):
        msg = f"no remote {name!r}"
        raise RefNotFoundError(msg)
    return remotes[name]


def _set_order(document: Any, change: Callable[[list[str]], list[str]]) -> None:
    remotes = _section(document, "remote")
    old = [part.strip() for part in str(remotes.get("order", "")).split(",") if part.strip()]
    new = change(old)
    if new != old:
        remotes["order"] = ", ".join(new)


@contextmanager
def _editing(path: Path) -> Iterator[Any]:
    """The document of a settings file that exists; written when the block ends without an error, if it changed."""
    import tomlkit

    read(path)
    before = path.read_text("utf-8")
    document = tomlkit.parse(before)
    yield document
    after = tomlkit.dumps(document)
    if after != before:
        _replace(path, after)


def set_value(path: Path, key: str, value: str | None) -> None:
    """Write one setting into a settings file, which is made when missing; None takes the setting out.

    Raises:
        UsageError: an unknown key, or a value of the wrong form. MalformedError, StoreError: the file cannot be read
            or written; it is as it was.
    """
    import tomlkit

    section, _, name = key.partition(".")
    if key not in KEYS:
        msg = f"no setting {key!r}; there are {', '.join(KEYS)}"
        raise UsageError(msg)
    if value is not None:
        _check_text(value)
        _typed({section: {name: value}}, {})
    if path.exists():
        read(path)
        document = tomlkit.parse(path.read_text("utf-8"))
    else:
        document = tomlkit.document()
    table = document.setdefault(section, tomlkit.table())
    if value is not None:
        table[name] = value
    elif name in table:
        del table[name]
    _replace(path, tomlkit.dumps(document))


def _check_text(value: str | None) -> None:
    try:
        (value or "").encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"{value!r} is not UTF-8: a settings file cannot hold it"
        raise UsageError(msg) from error


def _replace(path: Path, text: str) -> None:
    temp = path.with_name(f".{path.name}-{os.getpid()}-{os.urandom(4).hex()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temp.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
    except OSError as error:
        with suppress(OSError):
            temp.unlink()
        msg = f"{path} cannot be written: {error.strerror}"
        raise StoreError(msg) from error
