"""Where a server may send a client that asks it for something.

Servers of static files often keep packs elsewhere: in an object store with signed addresses, at a CDN. A redirect is
followed for GET alone. What comes back is checked like any answer, so the one danger is what a request does at its
target: it carries no secret to another origin, never leaves https, and a server out in the internet cannot have it sent
to machines inside (`is_public` of a connection).
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, urljoin, urlsplit

from shardfs.errors import UsageError
from shardfs.remotes.address import Address, address

MAX: Final = 3  # in a row; a store behind a CDN needs two
_MAX_SHOWN: Final = 200
_LOGIN: Final = re.compile(r"//[^/]*@")
_MAX_LENGTH: Final = 8192  # of an address; signed ones have about 1000 characters


class ForbiddenError(ConnectionError):
    """A redirect leads to a machine that the one who sent it has no business with."""


def resolve(here: Address, target: str, location: str | None) -> tuple[Address, str] | None:
    """Where a redirect leads.

    Args:
        here: the server that sent it.
        target: path and query that it was asked for.
        location: what it said.

    Returns:
        The new server, and path and query to ask it for. None when the redirect must not be followed.
    """
    if not location or len(location) > _MAX_LENGTH:
        return None
    base = str(here._replace(parts=())) + target
    try:
        joined = urlsplit(urljoin(base, location))._replace(fragment="")
        place = address(joined._replace(query="").geturl())
    except (ValueError, UsageError):
        return None
    if joined.username is not None or (here.scheme == "https" and place.scheme != "https"):
        return None
    path = quote(joined.path or "/", safe="/%~!$&'()*+,;=:@-._")
    query = quote(joined.query, safe="/%~!$&'()*+,;=:@-._?")
    return place, f"{path}?{query}" if query else path


def shown(location: str | None) -> str:
    """The target of a redirect for a message: without user, password, and the query, which may be a signature."""
    return _LOGIN.sub("//", str(location).partition("?")[0])[:_MAX_SHOWN]
