"""How many bytes of packs cross the link to a remote, and how long that takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shardfs.formats.ids import PackId
from shardfs.remotes import meter
from shardfs.remotes.base import Remote
from shardfs.remotes.forwarding import ForwardingRemote


class Flow:
    """Bytes in one direction. Safe to share between threads.

    Attributes:
        bytes: that crossed the link.
        seconds: in which some were on their way; those of several calls at once count once.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.seconds = 0.0
        self._calls = 0
        self._since = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def call(self) -> Iterator[None]:
        """A call whose bytes go this way."""
        with self._lock:
            if not self._calls:
                self._since = time.monotonic()
            self._calls += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls -= 1
                if not self._calls:
                    self.seconds += time.monotonic() - self._since

    def add(self, count: int) -> None:
        """Count bytes that have crossed the link."""
        with self._lock:
            self.bytes += count


class FlowingRemote(ForwardingRemote):
    """Wraps a remote and counts.

    Args:
        inner: the remote to ask.
        received: bytes of packs that come.
        sent: bytes of packs that go; what the other side had before is not among them.
    """

    def __init__(self, inner: Remote, received: Flow, sent: Flow) -> None:
        super().__init__(inner)
        self._received = received
        self._sent = sent

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        """See `Remote.read_pack`."""
        with self._received.call():
            data = super().read_pack(pack_id, offset, length)
        self._received.add(len(data))
        return data

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        """See `Remote.put_pack`."""
        at: int | None = None

        def told(position: int) -> None:
            nonlocal at
            if at is not None:
                self._sent.add(max(0, position - at))
            at = position

        with self._sent.call(), meter.watch(told):
            super().put_pack(path, pack_id)
