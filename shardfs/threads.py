"""Threads for work in the background."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

_T = TypeVar("_T")


def start(work: Callable[[], object], name: str) -> threading.Thread | None:
    """A thread that runs `work`; a program that ends does not wait for it.

    Returns:
        None when the system allows no more threads.
    """
    thread = threading.Thread(target=work, name=f"shardfs-{name}", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        return None
    return thread


def ask(work: Callable[[], _T], name: str) -> Future[_T]:
    """What `work` returns or raises, in a thread as of `start`; where there can be none, in this one, at once."""
    answer: Future[_T] = Future()

    def run() -> None:
        try:
            answer.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised where the answer is waited for
            answer.set_exception(error)

    if start(run, name) is None:
        run()
    return answer
