"""A remote that is left alone while it is in trouble: by all threads, for a pause that grows.

A server that answers 429 or 503 with Retry-After is left alone for that long. One that failed several times in a row is
asked again by one request only, after a pause; calls in the meantime wait for that, as they would wait between their
own repeats. Once it has been failing for longer than a call may take, they wait no more and get the error at once.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from shardfs.errors import (
    RemoteDownError,
    RemoteError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
)
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes.base import Remote, RemoteRefs
from shardfs.remotes.counters import Counters
from shardfs.remotes.forwarding import ForwardingRemote

_ROW: Final = 3  # failures in a row that are no accident any more
_FIRST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 10.0  # a server that is back is noticed that much later at most
_LONGEST_WISH_S: Final = 60.0  # that a server is left alone because it says so; clocks and proxies may be wrong
_PROBE_S: Final = 5.0  # after which a probe that has not answered is joined by another one

_T = TypeVar("_T")


class Breaker:
    """Whether a remote may be asked now. Safe to share between threads.

    Args:
        deadline_s: seconds that one call may take, after which failing is no passing trouble.
        counters: told what was held back.
        clock: seconds; for tests.
    """

    def __init__(self, deadline_s: float, counters: Counters, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadline_s = deadline_s
        self._counters = counters
        self._clock = clock
        self._lock = threading.Lock()
        self._row = 0  # failures since the last answer
        self._since = 0.0  # when the first of them was begun
        self._until = float("-inf")  # left alone until then
        self._pause_s = 0.0
        self._probed_at = float("-inf")
        self._last: RemoteError | None = None

    @property
    def available(self) -> bool:
        """Whether a request would be made now."""
        return self._clock() >= self._until

    def enter(self) -> float:
        """A request is to be made now; returns its beginning.

        Raises:
            RemoteUnavailableError: the remote is left alone for so many seconds more (`retry_after_s`).
            RemoteDownError: it has been failing for so long that waiting is of no use.
        """
        with self._lock:
            now = self._clock()
            left = self._until - now
            if left <= 0 and self._row >= _ROW:
                if now - self._probed_at >= _PROBE_S:
                    self._probed_at = now
                else:
                    left = _FIRST_PAUSE_S  # somebody is finding out
            if left <= 0:
                self._counters.attempts += 1
                return now
            self._counters.held_back += 1
            raise self._held_back(now, left)

    def answered(self) -> None:
        """The remote answered, whatever it said."""
        if self._row or self._pause_s:
            with self._lock:
                self._row, self._pause_s, self._probed_at = 0, 0.0, float("-inf")
        self._counters.down = 0

    def failed(self, error: RemoteError, begun: float) -> None:
        """A request that was begun then failed in a way that another one may fail, too."""
        self._counters.failures += 1
        with self._lock:
            now = self._clock()
            self._last = error
            self._since = min(self._since, begun) if self._row else begun
            self._row += 1
            self._probed_at = float("-inf")
            asked_for = getattr(error, "retry_after_s", None)
            if asked_for:
                self._until = max(self._until, now + min(asked_for, _LONGEST_WISH_S))
            elif self._row >= _ROW and now >= self._until:
                self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or _FIRST_PAUSE_S)
                self._until = now + self._pause_s * random.uniform(0.8, 1.2)
            self._counters.down = int(now < self._until)

    def _held_back(self, now: float, left: float) -> RemoteError:
        told = f"{self._last}; it is not asked again for {left:.1f} s"
        if self._row >= _ROW and now - self._since > self._deadline_s:
            return RemoteDownError(told)
        if isinstance(self._last, RemoteUnreachableError):
            return RemoteUnreachableError(told, left)
        return RemoteUnavailableError(told, left)


class GuardedRemote(ForwardingRemote):
    """Wraps a remote; each attempt asks a breaker before and tells it how it ended.

    Args:
        inner: the remote to ask.
        breaker: of this remote.
        trouble: called when the remote had trouble with what was asked at once.
    """

    def __init__(self, inner: Remote, breaker: Breaker, trouble: Callable[[], object]) -> None:
        super().__init__(inner)
        self._breaker = breaker
        self._trouble = trouble

    def refs(self) -> RemoteRefs:
        """See `Remote.refs`."""
        return self._ask(super().refs)

    def list_packs(self) -> list[PackSize]:
        """See `Remote.list_packs`."""
        return self._ask(super().list_packs)

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        return self._ask(lambda: self._inner.read_pack(pack_id, offset, length))

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        """See `Remote.has`."""
        return self._ask(lambda: self._inner.has(ids))

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`."""
        self._ask(lambda: self._inner.put_pack(path, pack_id))

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        """See `Remote.update_ref`."""
        self._ask(lambda: self._inner.update_ref(name, old, new))

    def _ask(self, call: Callable[[], _T]) -> _T:
        begun = self._breaker.enter()
        try:
            result = call()
        except (RemoteUnavailableError, RemoteTimeoutError) as error:
            self._breaker.failed(error, begun)
            if not isinstance(error, RemoteUnreachableError):
                self._trouble()
            raise
        except Exception:
            self._breaker.answered()
            raise
        self._breaker.answered()
        return result
