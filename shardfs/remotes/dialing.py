"""From the name of a host to a connected socket: several addresses at once when the first ones keep silent."""

from __future__ import annotations

import ipaddress
import os
import queue
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, zip_longest
from typing import Any, Final

from shardfs import threads
from shardfs.remotes import cancelling

_NEXT_S: Final = 0.25  # after which the next address is tried beside the one that keeps silent; RFC 8305, section 5
_LOOK_S: Final = 0.05  # between two looks whether the answer is wanted any more


def left(until: float) -> float:
    """Seconds until a monotonic time.

    Raises:
        TimeoutError: it has passed.
    """
    found = until - time.monotonic()
    if found <= 0:
        raise TimeoutError("no connection in time")
    return found


def connect(host: str, port: int, until: float, prepare: Callable[[socket.socket], object]) -> socket.socket:
    """A socket connected to the first address of a host that answers.

    Addresses are tried in the order of the system, IPv6 and IPv4 in turns, each a little after the one before.

    Args:
        host: name or address.
        port: of TCP.
        until: monotonic time after which nothing is waited for.
        prepare: called with each socket before it connects.

    Raises:
        OSError: unknown host, no address answered, or none in time.
    """
    waiting = _in_turns(_resolve(host, port, until))
    failure: OSError = TimeoutError("no connection in time")
    with selectors.DefaultSelector() as selector:
        try:
            next_at = 0.0
            while waiting or selector.get_map():
                now = time.monotonic()
                if waiting and (now >= next_at or not selector.get_map()):
                    next_at = now + _NEXT_S
                    try:
                        selector.register(_begin(waiting.pop(0), prepare), selectors.EVENT_WRITE)
                    except OSError as error:
                        failure = error
                        continue
                cancelling.check()
                wait_s = min(left(until), max(0.0, next_at - now)) if waiting else left(until)
                for key, _ in selector.select(min(wait_s, _LOOK_S) if cancelling.is_possible() else wait_s):
                    found: socket.socket = key.fileobj  # type: ignore[assignment]
                    selector.unregister(found)
                    code = found.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if code == 0:
                        return found
                    found.close()
                    failure = OSError(code, os.strerror(code))
            raise failure
        finally:
            for key in list(selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]


def _begin(found: Any, prepare: Callable[[socket.socket], object]) -> socket.socket:
    family, kind, protocol, _, where = found
    raw = socket.socket(family, kind, protocol)
    try:
        raw.setblocking(False)
        prepare(raw)
        with suppress(BlockingIOError):  # it is under way
            raw.connect(where)
    except BaseException:
        raw.close()
        raise
    return raw


def _in_turns(found: list[Any]) -> list[Any]:
    """Addresses of the family that the system puts first and of the others alternately."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    return [one for one in chain.from_iterable(zip_longest(first, others)) if one is not None]


def _resolve(host: str, port: int, until: float) -> list[Any]:
    """Addresses of a host. The resolver knows no time limit, so names are looked up on a thread that may be left."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        results: queue.SimpleQueue[list[Any] | OSError] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                results.put(list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))
            except (OSError, UnicodeError) as error:
                results.put(error if isinstance(error, OSError) else OSError(str(error)))

        if threads.start(look_up, "resolve") is None:
            look_up()
        try:
            result = results.get(timeout=left(until))
        except queue.Empty:
            msg = f"no address for {host} in time"
            raise TimeoutError(msg) from None
        if isinstance(result, OSError):
            raise result from None
        return result
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))
