"""A remote that asks again when asking again can help."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Final, TypeVar

from shardfs.errors import RemoteError, RemoteUnreachableError
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes import deadline, meter
from shardfs.remotes.base import Remote, RemoteRefs
from shardfs.remotes.forwarding import ForwardingRemote

_log = logging.getLogger(__name__)

DEFAULT_DEADLINE_S: Final = 30.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 10.0
_FIRST_ATTEMPTS: Final = 3  # to reach a place at all
_LONG_ATTEMPTS: Final = 4  # uploads that break after the deadline and are still begun again

_T = TypeVar("_T")


class RetryingRemote(ForwardingRemote):
    """Wraps a remote; repeats calls whose error is `retryable`, with growing random pauses, until a deadline.

    A server that says when to come back (Retry-After) is obeyed, unless that is after the deadline: then the error
    comes at once. A place that was never reached, most often a mistake in its URL, gets a second only.

    Args:
        inner: the remote to ask.
        deadline_s: seconds after which no attempt starts and no wait for an answer goes on.
        sleep: waits that many seconds; for tests.
    """

    def __init__(
        self,
        inner: Remote,
        deadline_s: float = DEFAULT_DEADLINE_S,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._deadline_s = deadline_s
        self._sleep = sleep
        self._reached = False

    def refs(self) -> RemoteRefs:
        """See `Remote.refs`."""
        return self._ask(self._inner.refs)

    def list_packs(self) -> list[PackSize]:
        """See `Remote.list_packs`."""
        return self._ask(self._inner.list_packs)

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        return self._ask(lambda: self._inner.read_pack(pack_id, offset, length))

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """See `Remote.has`."""
        return self._ask(lambda: self._inner.has(ids))

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`; the deadline runs from the last time that sending made progress."""
        furthest = [0]

        def told(position: int) -> None:
            furthest[0] = max(furthest[0], position)

        with meter.watch(told):
            return self._ask(lambda: self._inner.put_pack(path, pack_id), position=lambda: furthest[0])

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """See `Remote.update_ref`; a repeated move that already took place counts as done."""
        return self._ask(lambda: self._inner.update_ref(name, old, new))

    def _ask(self, call: Callable[[], _T], *, position: Callable[[], int] | None = None) -> _T:
        """The result of `call`; `position` of an upload: how far it ever was.

        An attempt that came further than all before it, or ran longer than the deadline, gets a new deadline.
        """
        end = time.monotonic() + self._deadline_s
        attempt = before = 0
        while True:
            started = time.monotonic()
            try:
                with nullcontext() if position else deadline.limit(end - started):
                    result = call()
                self._reached = True
                return result
            except RemoteError as error:
                self._reached = self._reached or not isinstance(error, RemoteUnreachableError)
                if not self._reached and attempt == _FIRST_ATTEMPTS - 1:
                    raise
                now = time.monotonic()
                if position and now - started > self._deadline_s and attempt < _LONG_ATTEMPTS:
                    end = now + self._deadline_s
                if position and position() > before:
                    before, attempt, end = position(), 0, now + self._deadline_s
                pause = _pause_s(attempt, getattr(error, "retry_after_s", None))
                if not error.retryable or now + pause >= end or pause >= deadline.remaining():
                    raise
                _log.info("%s; trying again in %.1f s", error, pause)
                self._sleep(pause)
                attempt += 1


def _pause_s(attempt: int, retry_after_s: float | None) -> float:
    """Exponential with full jitter, so that many clients of a server that comes back do not come back at once."""
    if retry_after_s is not None:
        return retry_after_s
    longest = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2.0 ** min(attempt, 16))
    return longest * random.uniform(0.3, 1.0)
