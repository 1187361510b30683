"""Where a URL of a web server leads: compared by what it means, not by how it is written."""

from __future__ import annotations

import ipaddress
from typing import Final, NamedTuple
from urllib.parse import SplitResult, quote, unquote, urlsplit

from shardfs.errors import UsageError

_PORTS: Final = {"http": 80, "https": 443}


class Address(NamedTuple):
    """A place on a web server, without what opens it.

    Attributes:
        scheme: "http" or "https".
        host: in lower case; an IPv6 address without brackets.
        port: the scheme's own when the URL names none.
        parts: components of the path, decoded.
    """

    scheme: str
    host: str
    port: int
    parts: tuple[str, ...]

    @property
    def origin(self) -> tuple[str, str, int]:
        """What a browser calls the origin: who has the right to see a secret of another path here."""
        return self[:3]

    @property
    def is_loopback(self) -> bool:
        """Whether the host is this machine, so that nobody between can listen."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_overheard(self) -> bool:
        """Whether others on the way can read what is sent there."""
        return self.scheme == "http" and not self.is_loopback

    def covers(self, other: Address) -> bool:
        """Whether `other` is this place or below it: same origin, and its path begins with all of this one's parts."""
        return self.origin == other.origin and other.parts[: len(self.parts)] == self.parts

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        path = "".join(f"/{quote(part, safe='~')}" for part in self.parts)
        return f"{self.scheme}://{host}{port}{path}"


def split(url: str) -> SplitResult:
    """The parts of an http or https URL.

    Raises:
        UsageError: not such a URL, or one with a query, a fragment, "." or ".." in it. The message holds nothing of it.
    """
    try:
        parts = urlsplit(url)
        sound = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        sound = False
        parts = urlsplit("")
    strange = any(c.isspace() or not c.isprintable() for c in url)
    dotted = any(part in (".", "..") for part in unquote(parts.path).split("/"))
    if not sound or parts.query or parts.fragment or strange or dotted:
        msg = "the URL of a remote must look like http://host[:port]/path"
        raise UsageError(msg)
    return parts


def address(url: str) -> Address:
    """Where an http or https URL leads.

    Raises:
        UsageError: as `split`.
    """
    parts = split(url)
    names = tuple(unquote(part) for part in parts.path.split("/") if part)
    return Address(parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme], names)


def is_web(url: str) -> bool:
    """Whether a URL is one of a web server."""
    return url.partition("://")[0].lower() in _PORTS and "://" in url


def without_login(url: str) -> str:
    """A URL without user name and password; anything else as it is.

    Raises:
        UsageError: as `split`.
    """
    if not is_web(url):
        return url
    parts = split(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
