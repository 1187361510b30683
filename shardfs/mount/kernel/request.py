"""One request of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Reply = Sequence[bytes | memoryview]  # buffers that are sent one after the other


@dataclass(slots=True, eq=False)
class Request:
    """What was asked.

    Attributes:
        opcode: of `messages.Opcode`, or a number that is not known here.
        unique: what the kernel calls the request.
        nodeid: the node that it is about.
        pid: thread that waits; 0 when it is in another process namespace.
        body: the message behind the header.
        undo: takes back what the reply would have told, when nobody receives it or the request fails after all.
    """

    opcode: int
    unique: int
    nodeid: int
    pid: int
    body: bytes | memoryview
    undo: Callable[[], None] | None = None
