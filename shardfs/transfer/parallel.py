"""Work on several items at once, with results in their order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue
from typing import Generic, TypeVar

from shardfs.threads import start

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _Job(Generic[_Item, _Result]):
    def __init__(self, item: _Item) -> None:
        self.item = item
        self.done = threading.Event()
        self.result: list[_Result] = []
        self.error: BaseException | None = None

    def run(self, work: Callable[[_Item], _Result]) -> None:
        try:
            self.result.append(work(self.item))
        except BaseException as error:  # noqa: BLE001 - raised where the result is taken
            self.error = error
        self.done.set()

    def wait(self) -> _Result:
        self.done.wait()
        if self.error is not None:
            raise self.error
        return self.result[0]


def in_order(
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    *,
    threads: int,
    ahead: int,
    size: Callable[[_Item], int] = lambda _: 1,
) -> Generator[_Result, None, None]:
    """The results of `work` on items, in order, computed by several threads.

    Args:
        work: called with each item, in any thread.
        items: taken as they are needed.
        threads: how many at most.
        ahead: most that is begun or done and not taken yet, in what `size` says; one item always is.
        size: of an item.

    Raises:
        Exception: that of the first item that failed; what was begun behind it is left to end by itself.
    """
    queue: SimpleQueue[_Job[_Item, _Result] | None] = SimpleQueue()

    def run() -> None:
        while (job := queue.get()) is not None:
            job.run(work)

    started = taken = 0
    try:
        waiting: deque[_Job[_Item, _Result]] = deque()
        for item in items:
            taken += size(item)
            while waiting and taken > ahead:
                job = waiting.popleft()
                taken -= size(job.item)
                yield job.wait()
            if started < threads and start(run, "parallel") is not None:
                started += 1
            waiting.append(_Job(item))
            if started:
                queue.put(waiting[-1])
            else:  # the system allows no threads
                waiting[-1].run(work)
        while waiting:
            yield waiting.popleft().wait()
    finally:
        for _ in range(started):
            queue.put(None)
