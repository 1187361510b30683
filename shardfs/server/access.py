"""Who may do what: one rule for each method of each endpoint, asked before anything is looked for on the disk."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from aiohttp import web

_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="shardfs"'}


class Permission(IntEnum):
    """What somebody may do; each one includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


# Writing adds, and takes nothing away: a token that leaks from a trainer cannot lose what others stored.
RULES: Final = {
    ("GET", "info"): Permission.READ,
    ("GET", "pack_file"): Permission.READ,
    ("GET", "pack_table"): Permission.READ,
    ("PUT", "pack"): Permission.WRITE,
    ("POST", "has"): Permission.READ,
    ("GET", "ref"): Permission.READ,
    ("PUT", "ref"): Permission.WRITE,
    ("DELETE", "ref"): Permission.ADMIN,
    ("GET", "block"): Permission.READ,
    ("PUT", "block"): Permission.WRITE,
    ("GET", "manifest"): Permission.READ,
    ("PUT", "manifest"): Permission.WRITE,
}


class Access:
    """The rules of one server.

    Args:
        anonymous: what those may do who show no token.
    """

    def __init__(self, anonymous: Permission = Permission.NONE) -> None:
        self.anonymous = anonymous

    def check(self, request: web.Request, endpoint: str) -> None:
        """Refuse what the sender of a request may not do.

        Raises:
            web.HTTPUnauthorized: not without a token.
        """
        method = "GET" if request.method == "HEAD" else request.method
        needed = RULES[method, endpoint]
        if self.anonymous < needed:
            raise web.HTTPUnauthorized(text=f"this needs a token with the permission {needed.name.lower()}")


def challenge(status: int) -> dict[str, str]:
    """Headers that an answer of this status carries to say how to get in."""
    return dict(_CHALLENGE) if status == 401 else {}
