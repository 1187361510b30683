"""What a user can choose of a mount, as options of the command and as the words of -o that fstab holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Final, get_args

from shardfs import config
from shardfs.errors import UsageError
from shardfs.mount.operating import LogFormat, LogLevel
from shardfs.mount.options import Engine

# What mount(8) passes on from fstab: said already by how this program mounts, or meant for others.
_IGNORED: Final = frozenset(
    {"rw", "dev", "nodev", "suid", "nosuid", "exec", "atime", "noatime", "diratime", "nodiratime", "relatime",
     "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "defaults", "default_permissions",
     "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev", "nofail", "sync", "async"}
)  # fmt: skip
_IGNORED_BEGINNINGS: Final = ("x-", "X-", "comment=")


@dataclass(frozen=True)
class Choice:
    """What the user chose. `source` and `remote` are places, all else has a word for -o."""

    source: str = "."
    remote: str | None = None
    branch: str | None = None
    read_only: bool = False
    allow_other: bool = False
    nonempty: bool = False
    safe: bool = False
    passthrough: bool = True
    deadline: float | None = None
    bwlimit: str | None = None
    engine: Engine = "auto"
    log_file: str | None = None
    log_level: LogLevel | None = None
    log_format: LogFormat = "text"
    metrics: str | None = None


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1e6:
        raise ValueError
    return number


def _size(text: str) -> str:
    try:
        config.parse_size(text)
    except UsageError as error:
        raise ValueError from error
    return text


def _one_of(kind: Any) -> Callable[[str], str]:
    def check(text: str) -> str:
        if text not in get_args(kind):
            raise ValueError
        return text

    return check


_FLAGS: Final[dict[str, tuple[str, bool]]] = {
    "ro": ("read_only", True),
    "allow_other": ("allow_other", True),
    "nonempty": ("nonempty", True),
    "safe": ("safe", True),
    "no_passthrough": ("passthrough", False),
}
_VALUES: Final[dict[str, Callable[[str], object]]] = {
    "branch": str,
    "remote": str,
    "deadline": _seconds,
    "bwlimit": _size,
    "engine": _one_of(Engine),
    "log_file": str,
    "log_level": _one_of(LogLevel),
    "log_format": _one_of(LogFormat),
    "metrics": str,
}


def with_words(choice: Choice, given: Iterable[str]) -> Choice:
    """Apply the words of -o.

    Raises:
        UsageError: a word that has no meaning.
    """
    for word in (word for words in given for word in words.split(",") if word):
        key, _, value = word.partition("=")
        if word in _FLAGS:
            field, state = _FLAGS[word]
            choice = replace(choice, **{field: state})  # type: ignore[arg-type]
        elif key in _VALUES and value:
            choice = replace(choice, **{key: _parsed(word)})  # type: ignore[arg-type]
        elif key not in _IGNORED and not word.startswith(_IGNORED_BEGINNINGS):
            raise _unknown(word)
    return choice


def words_of(choice: Choice) -> list[str]:
    """The words that stand for a choice, without its places.

    Raises:
        UsageError: a value holds a comma, which would begin another word.
    """
    defaults = {field.name: field.default for field in fields(Choice)}
    words = [word for word, (field, state) in _FLAGS.items() if getattr(choice, field) is state]
    for key in _VALUES:
        value = getattr(choice, key)
        if key == "remote" or value == defaults[key]:
            continue
        word = f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        if "," in word:
            msg = f"{word}: a comma ends a word of -o; choose another name"
            raise UsageError(msg)
        words.append(word)
    return words


def _parsed(word: str) -> object:
    key, _, value = word.partition("=")
    try:
        return _VALUES[key](value)
    except ValueError:
        msg = f"-o {word}: {key} cannot be {value!r}; `shardfs mount --help` says what it can be"
        raise UsageError(msg) from None


def _unknown(word: str) -> UsageError:
    known = [*_FLAGS, *(f"{key}=" for key in _VALUES)]
    return UsageError(f"-o {word}: not an option; there are {', '.join(known)}")
