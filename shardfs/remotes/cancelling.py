"""Calls that another thread may end, whatever they wait for.

`with within(call):` makes the remote calls of the block part of `call`; `call.cancel()` shuts their connection down, so
that they end at once with an error that nobody looks at.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_local = threading.local()


class Abortable(Protocol):
    """What a call waits for."""

    def abort(self) -> None:
        """End the wait; called from another thread."""
        ...


class CancelledError(ConnectionAbortedError):
    """The answer is not wanted any more."""


class Call:
    """What may be cancelled; of use for one `within`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waits_for: Abortable | None = None
        self.is_cancelled = False

    def cancel(self) -> None:
        """End it."""
        with self._lock:
            self.is_cancelled = True
            if self._waits_for is not None:
                self._waits_for.abort()

    @contextmanager
    def waiting_for(self, found: Abortable) -> Iterator[None]:
        """Have `found` aborted if the call is cancelled in the block.

        Raises:
            CancelledError: it is already.
        """
        with self._lock:
            if self.is_cancelled:
                raise CancelledError("not wanted any more")
            self._waits_for = found
        try:
            yield
        finally:
            with self._lock:
                self._waits_for = None


@contextmanager
def within(call: Call) -> Iterator[None]:
    """Make what this thread asks in the block part of a call."""
    before = getattr(_local, "call", None)
    _local.call = call
    try:
        yield
    finally:
        _local.call = before


@contextmanager
def waiting_for(found: Abortable) -> Iterator[None]:
    """`Call.waiting_for` of the call of this thread, if it is part of one."""
    call: Call | None = getattr(_local, "call", None)
    if call is None:
        yield
        return
    with call.waiting_for(found):
        yield


def is_possible() -> bool:
    """Whether what this thread does may be cancelled."""
    return getattr(_local, "call", None) is not None


def check() -> None:
    """Return unless the call of this thread was cancelled.

    Raises:
        CancelledError: it was.
    """
    call: Call | None = getattr(_local, "call", None)
    if call is not None and call.is_cancelled:
        raise CancelledError("not wanted any more")
