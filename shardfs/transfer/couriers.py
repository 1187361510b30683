"""Threads that run requests to one remote: what somebody waits for first, then what may be wanted later."""

from __future__ import annotations

import heapq
import threading
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from itertools import count
from typing import Final

from shardfs import threads
from shardfs.errors import RemoteUnavailableError
from shardfs.remotes.adaptive import in_background

MAX_IN_FLIGHT: Final = 16  # requests; what servers and proxies take from one client without objecting
MAX_AHEAD: Final = 8  # of them those that nobody waits for yet; 6 of 1 MiB fill 1 Gbit/s at 20 ms
_IDLE_S: Final = 10.0  # after which a thread ends


class Job:
    """One request to be made.

    Attributes:
        work: makes it; must not raise.
        drop: called instead when it is cancelled.
        owner: for whom it is made ahead.
    """

    __slots__ = ("drop", "is_ahead", "is_taken", "owner", "work")

    def __init__(self, work: Callable[[], None], drop: Callable[[], None], owner: object = None) -> None:
        self.work, self.drop, self.owner = work, drop, owner
        self.is_taken = False
        self.is_ahead = False  # it was taken while nobody waited for it

    def run(self) -> None:
        """Make it. What came is often all that keeps a job in memory: it must not keep that in turn."""
        work, self.work, self.drop = self.work, _nothing, _nothing
        work()

    def forget(self) -> None:
        """It will not be made."""
        drop, self.work, self.drop = self.drop, _nothing, _nothing
        drop()


class Couriers:
    """A pool of at most `MAX_IN_FLIGHT` threads, which end when there is nothing to do. Safe to share between threads.

    Attributes:
        peak: most requests that were in flight at once.
    """

    def __init__(self, has_room: Callable[[], bool] = lambda: True) -> None:
        """Begin what was sent ahead while `has_room` says so: what comes has to be kept until somebody takes it."""
        self._has_room = has_room
        self._changed = threading.Condition(threading.Lock())
        self._urgent: deque[Job] = deque()
        self._ahead: list[tuple[int, int, Job]] = []
        self._order = count()
        self._threads = self._idle = self._running = self._running_ahead = 0
        self.peak = 0

    def send(self, job: Job) -> None:
        """Run a job that somebody waits for as soon as a thread is free; one that was sent ahead comes forward."""
        with self._changed:
            if not job.is_taken:
                self._urgent.append(job)
                self._wake()

    def send_ahead(self, job: Job, distance: int) -> None:
        """Run a job when nobody waits for others; those with the least distance first."""
        with self._changed:
            heapq.heappush(self._ahead, (distance, next(self._order), job))
            if self._running_ahead < MAX_AHEAD:
                self._wake()

    def go_on(self) -> None:
        """There may be room again."""
        with self._changed:
            if self._ahead:
                self._wake()

    def cancel(self, owner: object = None) -> None:
        """Drop what was sent ahead for `owner` (None: for anybody) and does not run yet."""
        with self._changed:
            urgent = set(self._urgent)
            gone = [j for _, _, j in self._ahead if j not in urgent and (owner is None or j.owner is owner)]
            gone = [job for job in gone if not job.is_taken]
            for job in gone:
                job.is_taken = True
        for job in gone:
            job.forget()

    def revoke(self, job: Job) -> bool:
        """Never run a job; False when it runs already."""
        with self._changed:
            if job.is_taken:
                return False
            job.is_taken = True
            job.work = job.drop = _nothing
            return True

    def _wake(self) -> None:
        self._changed.notify()
        if len(self._urgent) + len(self._ahead) > self._idle and self._threads < MAX_IN_FLIGHT:
            self._threads += threads.start(self._run, "remote") is not None
            if not self._threads:
                msg = "the system allows no more threads; raise the limit of processes and threads"
                raise RemoteUnavailableError(msg)

    def _run(self) -> None:
        while (job := self._take()) is not None:
            with in_background() if job.is_ahead else nullcontext():
                job.run()
            with self._changed:
                self._running -= 1
                self._running_ahead -= job.is_ahead

    def _take(self) -> Job | None:
        """The next job; None when there was none for a while: the thread ends."""
        with self._changed:
            while (job := self._next()) is None:
                self._idle += 1
                is_woken = self._changed.wait(_IDLE_S)
                self._idle -= 1
                if not is_woken and not self._urgent and not self._ahead:
                    self._threads -= 1
                    return None
            job.is_taken = True
            self._running += 1
            self._running_ahead += job.is_ahead
            self.peak = max(self.peak, self._running)
            return job

    def _next(self) -> Job | None:
        while self._urgent:
            job = self._urgent.popleft()
            if not job.is_taken:
                return job
        while self._ahead and self._running_ahead < MAX_AHEAD and self._has_room():
            job = heapq.heappop(self._ahead)[2]
            if not job.is_taken:
                job.is_ahead = True
                return job
        return None


def _nothing() -> None:
    pass
