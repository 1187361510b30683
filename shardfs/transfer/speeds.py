"""How fast the last transfers with each remote were, so that a dry run can say how long the next one will take.

Spec: docs/design/format/store.md, "Speeds". The file may be lost or damaged at any time: then nothing is known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final, Literal, NamedTuple

from shardfs.errors import StoreError
from shardfs.remotes.base import Remote
from shardfs.remotes.counters import Counters
from shardfs.store import atomic
from shardfs.store.layout import Layout

Direction = Literal["received", "sent"]

_VERSION: Final = 1
_MAX_SIZE: Final = 1 << 20  # bytes of the file
_LEAST: Final = 1 << 20  # bytes; fewer say more about the delay of a link than about its speed
_MOST: Final = 1 << 50  # bytes per second
_HELD_BACK: Final = 0.9  # of the limit; what is faster was slowed down by that, and says nothing about the link


class Expectation(NamedTuple):
    """How long a transfer will take.

    Attributes:
        seconds: in all.
        bytes_per_s: at this speed.
        is_limit: the speed is the limit that is set (`remote.bwlimit`), not that of the last transfer.
    """

    seconds: float
    bytes_per_s: int
    is_limit: bool


def expectation(size: int, speed: int | None, limit: int) -> Expectation | None:
    """What to expect of a transfer; None when nothing is known.

    Args:
        size: bytes.
        speed: bytes per second of the last transfer; None when there was none.
        limit: bytes per second; 0: none.
    """
    if limit and (speed is None or limit < speed):
        return Expectation(size / limit, limit, is_limit=True)
    return None if speed is None else Expectation(size / speed, speed, is_limit=False)


class Speeds:
    """The speeds that a repository remembers, by URL: a remote that is elsewhere now has none.

    Args:
        layout: of the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._path = layout.speeds
        self._tmp = layout.tmp

    def get(self, url: str, direction: Direction) -> int | None:
        """Bytes per second of the last transfer from or to a URL; None when that is not known."""
        return self._read().get(url, {}).get(direction)

    @contextmanager
    def remembered(self, urls: Mapping[str, str], opened: Mapping[str, Remote], limit: int) -> Iterator[None]:
        """Remember how fast remotes are in the block, if it ends well.

        Args:
            urls: of all remotes, by name.
            opened: those of them that are in use; may become more in the block.
            limit: bytes per second; 0: none.
        """
        before = {name: _amounts(remote) for name, remote in opened.items()}
        yield
        found: dict[str, dict[str, int]] = {}
        for name, remote in list(opened.items()):
            for direction, (size, seconds) in _amounts(remote).items():
                size_before, seconds_before = before.get(name, {}).get(direction, (0, 0.0))
                size, seconds = size - size_before, seconds - seconds_before
                is_held_back = limit and size > _HELD_BACK * limit * seconds
                if name in urls and size >= _LEAST and not is_held_back:
                    found.setdefault(urls[name], {})[direction] = min(_MOST, int(size / max(seconds, 1e-6)))
        if found:
            self._write(found, urls)

    def _write(self, found: Mapping[str, dict[str, int]], urls: Mapping[str, str]) -> None:
        known = self._read()
        speeds = {url: {**known.get(url, {}), **found.get(url, {})} for url in urls.values()}
        value = {"version": _VERSION, "speeds": {url: speed for url, speed in speeds.items() if speed}}
        with suppress(StoreError):  # the transfer is done
            atomic.write_bytes(self._path, json.dumps(value, indent=0).encode() + b"\n", self._tmp, mode=0o600)

    def _read(self) -> dict[str, dict[str, int]]:
        """The speeds by URL and direction."""
        try:
            with self._path.open("rb") as file:
                value = json.loads(file.read(_MAX_SIZE))
            if value["version"] != _VERSION:
                return {}
            return {url: _sound(speeds) for url, speeds in value["speeds"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}


def _sound(speeds: Mapping[str, Any]) -> dict[str, int]:
    """What of the speeds of one URL can be true."""
    return {key: speed for key, speed in speeds.items() if type(speed) is int and 0 < speed <= _MOST}


def _amounts(remote: Remote) -> dict[str, tuple[int, float]]:
    """Bytes and seconds of both directions so far."""
    counters = getattr(remote, "counters", None)
    if not isinstance(counters, Counters):
        return {}
    flows = {"received": counters.received, "sent": counters.sent}
    return {direction: (flow.bytes, flow.seconds) for direction, flow in flows.items()}
