"""What an operator wrote about repositories: `<root>/.server/config.toml`. Format: docs/design/format/server.md."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shardfs import config
from shardfs.errors import MalformedError, UsageError
from shardfs.server.patterns import check_pattern, matches, narrowness
from shardfs.server.tokens import Permission

_KEYS: Final = frozenset({"anonymous", "quota"})


@dataclass(frozen=True, slots=True)
class Rule:
    """What one section says; None: nothing.

    Attributes:
        anonymous: what those may do who show no token.
        quota: most bytes of packs.
    """

    anonymous: Permission | None = None
    quota: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What the file says; nothing without a file.

    Attributes:
        default: for what no section of a repository says.
        repositories: by pattern, the narrowest first.
    """

    default: Rule = Rule()
    repositories: Mapping[str, Rule] = field(default_factory=dict)

    def anonymous(self, repository: str) -> Permission | None:
        """What anybody may do in a repository; None: the file does not say."""
        found = (rule.anonymous for rule in self._rules(repository) if rule.anonymous is not None)
        return next(found, self.default.anonymous)

    def quota(self, repository: str) -> int | None:
        """Most bytes of packs of a repository; None: as many as the disk takes."""
        found = (rule.quota for rule in self._rules(repository) if rule.quota is not None)
        return next(found, self.default.quota)

    def lets_anybody_in(self) -> bool:
        """Whether something is open without a token."""
        return any(rule.anonymous for rule in (self.default, *self.repositories.values()))

    def _rules(self, repository: str) -> list[Rule]:
        return [rule for pattern, rule in self.repositories.items() if matches(pattern, repository)]


def parse_rules(data: bytes) -> Rules:
    """The rules of a file.

    Raises:
        MalformedError: not TOML, or an unknown section, key or value: a rule that is not understood protects nobody.
    """
    try:
        tables = tomllib.loads(data.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not TOML: {error}"
        raise MalformedError(msg) from error
    repositories = tables.get("repository", {})
    unknown = tables.keys() - {"default", "repository"}
    if unknown or not isinstance(repositories, dict):
        what = min(unknown, default="repository")
        msg = f'{what!r} is not understood; write [default] or [repository."NAME"]'
        raise MalformedError(msg)
    try:
        narrow_first = sorted(map(check_pattern, repositories), key=narrowness, reverse=True)
        found = {pattern: _rule(f'repository."{pattern}"', repositories[pattern]) for pattern in narrow_first}
        return Rules(_rule("default", tables.get("default", {})), found)
    except UsageError as error:
        raise MalformedError(str(error)) from error


def _rule(section: str, table: object) -> Rule:
    if not isinstance(table, dict) or table.keys() - _KEYS:
        known = " and ".join(sorted(_KEYS))
        msg = f"[{section}] holds {known}, and nothing else"
        raise MalformedError(msg)
    return Rule(_anonymous(section, table.get("anonymous")), _quota(table.get("quota")))


def _anonymous(section: str, value: Any) -> Permission | None:
    if value is None:
        return None
    names = [permission.name.lower() for permission in Permission]
    if value not in names:
        msg = f"[{section}] anonymous is one of {', '.join(names)}, not {value!r}"
        raise MalformedError(msg)
    return Permission(names.index(value))


def _quota(value: Any) -> int | None:
    return None if value is None else config.parse_size(value)
