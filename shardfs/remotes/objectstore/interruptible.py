"""Calls of a library that looks at no signal while it waits: Ctrl-C shall not wait for a silent store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from shardfs import threads
from shardfs.remotes import deadline

_P = ParamSpec("_P")
_T = TypeVar("_T")


def interruptible(call: Callable[_P, _T]) -> Callable[_P, _T]:
    """`call`, for which another thread waits in place of the main one, the only one that signals interrupt."""

    @wraps(call)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        if threading.current_thread() is not threading.main_thread():
            return call(*args, **kwargs)
        left_s = deadline.remaining()

        def ask() -> _T:
            with deadline.limit(left_s):
                return call(*args, **kwargs)

        return threads.ask(ask, "object-store").result()

    return called
