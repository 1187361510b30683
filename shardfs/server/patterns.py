"""Which repositories are meant: one by its name, all below a name (`team/*`), or all (`*`)."""

from __future__ import annotations

from typing import Final

from shardfs.errors import UsageError
from shardfs.server.routes import is_repository

EVERY: Final = "*"
_BELOW: Final = "/*"


def check_pattern(text: str) -> str:
    """`text` if it is a pattern.

    Raises:
        UsageError: else.
    """
    if text != EVERY and not is_repository(text.removesuffix(_BELOW)):
        msg = f"not a repository: {text[:80]!r}; write a name, such as team/llm, or a name with /* behind it"
        raise UsageError(msg)
    return text


def matches(pattern: str, repository: str) -> bool:
    """Whether a repository is meant by a pattern; `team/*` means those at any depth below `team`, and not `team`."""
    if pattern.endswith(_BELOW):
        return repository.startswith(pattern.removesuffix(EVERY))
    return pattern in (EVERY, repository)


def narrowness(pattern: str) -> tuple[bool, int]:
    """Sorts patterns of one repository: the last one says the most about it."""
    return not pattern.endswith(EVERY), len(pattern)
