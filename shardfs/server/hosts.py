"""The names by which a server is asked for that only its own machine can reach.

A page of the web whose name is made to point to this machine (DNS rebinding) may read what it gets from here: for the
browser it comes from the page's own site. That name stands in `Host`, which a page cannot choose.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable

_PORT = re.compile(r":\d*$")


class OwnNames:
    """Addresses, `localhost`, the name of this machine, and other names.

    Args:
        names: the others, without port.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        own = socket.gethostname()
        self._names = {_plain(name) for name in ("localhost", own, own.partition(".")[0], *names)}

    def has(self, host: str) -> bool:
        """Whether the value of the header `Host` is one of them; an empty one is, as no browser sends it."""
        name = _plain(_PORT.sub("", host.strip()))
        return not name or name in self._names or name.endswith(".localhost") or _is_address(name)


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
