"""Objects below one prefix of an object store, by obstore. Blocking; safe to share between threads.

One call of a remote is many requests here. obstore sends a request again that failed at once, so that one of them does
not cost all; what takes longer is the part of `RetryingRemote`, which knows the deadline.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

import obstore
from blake3 import blake3
from obstore.exceptions import AlreadyExistsError, BaseError

from shardfs.errors import RemoteDeniedError, RemoteError, RemoteProtocolError, RemoteTimeoutError
from shardfs.remotes import deadline, meter
from shardfs.remotes.objectstore.errors import ConditionUnknownError, is_no_bucket, is_unknown_condition, remote_error
from shardfs.remotes.objectstore.interruptible import interruptible

if TYPE_CHECKING:
    from obstore import Attributes
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

PART_SIZE: Final = 5 << 20  # bytes of a part of an upload, the smallest that S3 takes: its wait is the shortest
_PARTS_AT_ONCE: Final = 4  # so an upload takes at most 25 MiB of memory
_CONNECT_S: Final = 10.0
_IDLE_S: Final = 15.0  # until the answer begins, and between two pieces of it
_LEAST_S: Final = 0.25
# Bytes per second of what is sent. How far it is cannot be seen: what is slower counts as silence, which so ends after
# 128 s in the middle of a part.
_LEAST_SPEED: Final = 48 << 10
_LEAST_COMING: Final = 16 << 10  # bytes per second of what is received: 8 MiB in 512 s
_PAGE_SIZE: Final = 1 << 20  # bytes of an answer to a listing, of 1000 names
_MOST_EXPECTED: Final = 8 << 20  # bytes of an answer of unknown length
_REPEATS: Final = 3
_REPEATING_SHARE: Final = 4  # requests are sent again for this part of the wait for one
_PAUSE: Final = (timedelta(milliseconds=50), timedelta(milliseconds=400))  # the first and the longest


class Listed(NamedTuple):
    """An object of a listing: its name below the prefix, its size in bytes, and a tag that changes with its content."""

    name: str
    size: int
    tag: str | None


class Bucket:
    """Objects below a prefix.

    Args:
        make_store: makes obstore's store of the place from options of its HTTP client and of what it sends again; the
            prefix is in it.
        url: where it is, for messages.
        deadline_s: seconds that no wait for an answer exceeds.
        endpoint: whose bucket it is, where the URL does not say that.

    Attributes:
        url: as given.
        identity: 16 hexadecimal digits that two places with the same URL at two endpoints do not share.
    """

    def __init__(
        self,
        make_store: Callable[[ClientConfig, RetryConfig], ObjectStore],
        url: str,
        deadline_s: float,
        endpoint: str = "",
    ) -> None:
        self.url = url
        self.identity = blake3(f"{endpoint} {url}".encode()).hexdigest()[:16]
        self._make = make_store
        self._idle_s = min(_IDLE_S, deadline_s)
        self._connect_s = min(_CONNECT_S, deadline_s)
        self._parts_at_once = _PARTS_AT_ONCE
        self._stores: dict[tuple[float, float], ObjectStore] = {}
        self._guard = threading.Lock()
        self._store()  # a place that cannot be named is an error now

    @interruptible
    def get(self, name: str, limit: int) -> bytes | None:
        """The content of an object; None when there is none.

        Raises:
            RemoteProtocolError: it has more than `limit` bytes. RemoteError: by the store.
        """
        with self._errors(f"GET {name}"):
            try:
                result = obstore.get(self._store(coming=min(limit, _MOST_EXPECTED)), name)
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None
            if result.meta["size"] > limit:
                msg = f"{self.url}/{name} has {result.meta['size']} bytes where at most {limit} are expected"
                raise RemoteProtocolError(msg)
            return bytes(result.bytes())

    @interruptible
    def get_range(self, name: str, offset: int, length: int) -> bytes | None:
        """Up to `length` bytes of an object from `offset`, less only at its end; None when there is no such object.

        Raises:
            RemoteProtocolError: it ends before `offset`. RemoteError: by the store.
        """
        with self._errors(f"GET {name}"):
            try:
                return bytes(obstore.get_range(self._store(coming=length), name, start=offset, length=length))
            except FileNotFoundError as error:
                self._check_bucket(error)
                return None

    @interruptible
    def size(self, name: str) -> int | None:
        """The bytes of an object; None when there is none.

        Raises:
            RemoteError: by the store.
        """
        with self._errors(f"HEAD {name}"):
            try:
                return obstore.head(self._store(), name)["size"]
            except FileNotFoundError:
                return None

    @interruptible
    def list(self, prefix: str) -> list[Listed]:
        """All objects whose names begin with `prefix`, a folder.

        Raises:
            RemoteError: by the store.
        """
        with self._errors(f"LIST {prefix}"):
            pages = obstore.list(self._store(coming=_PAGE_SIZE), prefix)
            return [Listed(found["path"], found["size"], found["e_tag"]) for page in pages for found in page]

    @interruptible
    def create(self, name: str, data: bytes) -> bool:
        """Make an object if there is none of that name; whether it was made.

        Raises:
            ConditionUnknownError: the store says that it cannot do that. RemoteError: by the store.
        """
        with self._errors(f"PUT {name}"):
            try:
                obstore.put(
                    self._store(sent=len(data)),
                    name,
                    data,
                    mode="create",
                    attributes=_attributes(name),
                    use_multipart=False,
                )
            except AlreadyExistsError:
                return False
            except BaseError as error:
                if is_unknown_condition(error):
                    raise ConditionUnknownError(f"{self.url} does not know If-None-Match") from None
                raise
            return True

    @interruptible
    def put(self, name: str, data: bytes) -> None:
        """Make or replace an object.

        Raises:
            RemoteError: by the store.
        """
        with self._errors(f"PUT {name}"):
            obstore.put(self._store(sent=len(data)), name, data, attributes=_attributes(name), use_multipart=False)

    def put_file(self, name: str, path: Path) -> None:
        """Make or replace an object by a file, in parts when it is long; it appears whole or not at all.

        Raises:
            FileNotFoundError, OSError: the file cannot be read. RemoteError: by the store.
        """
        at_once = self._parts_at_once
        try:
            with path.open("rb") as file, self._errors(f"PUT {name}"):
                obstore.put(
                    self._store(sent=PART_SIZE),
                    name,
                    _parts(file, at_once),
                    attributes=_attributes(name),
                    chunk_size=PART_SIZE,
                    max_concurrency=at_once,
                )
        except RemoteTimeoutError:
            self._parts_at_once = 1  # on a slow line one part has the whole of it, and arrives in time
            raise

    @interruptible
    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; those that are gone already count as deleted.

        Raises:
            RemoteError: by the store.
        """
        with self._errors(f"DELETE {names[0]}"):
            obstore.delete(self._store(), names)

    def _store(self, *, sent: int = 0, coming: int = 0) -> ObjectStore:
        """The store for requests that send so many bytes and get so many: neither wait is longer than that takes."""
        wait_s = _rounded(min(deadline.remaining(), self._idle_s) + sent / _LEAST_SPEED)
        whole_s = wait_s + _rounded(coming / _LEAST_COMING)
        with self._guard:
            if (wait_s, whole_s) not in self._stores:
                first, longest = _PAUSE
                self._stores[wait_s, whole_s] = self._make(
                    {
                        "connect_timeout": _span(min(self._connect_s, wait_s)),
                        "read_timeout": _span(wait_s),
                        "timeout": _span(whole_s),
                    },
                    {
                        "max_retries": _REPEATS,
                        "retry_timeout": timedelta(seconds=wait_s / _REPEATING_SHARE),
                        "backoff": {"init_backoff": first, "max_backoff": longest, "base": 2},
                    },
                )
            return self._stores[wait_s, whole_s]

    def _check_bucket(self, error: FileNotFoundError) -> None:
        if is_no_bucket(error):
            raise remote_error(self.url, error) from None

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        global _is_used
        if _is_lost:
            msg = (
                f"{self.url}: a process that was forked from one that used object storage cannot use it; "
                "start workers with 'spawn' or 'forkserver', or read through a mount"
            )
            raise RemoteDeniedError(msg)
        _is_used = True
        try:
            yield
        except RemoteError:
            raise
        except (BaseError, FileNotFoundError, ValueError, TimeoutError) as error:
            # What obstore says may hold key ids and signatures: nothing of it goes on, not even as a cause.
            raise remote_error(f"{what} at {self.url}", error) from None


# The threads that carry obstore's requests do not survive a fork: a request of the child would wait for ever.
_is_used = False
_is_lost = False


def _after_fork() -> None:
    global _is_lost
    _is_lost = _is_used


os.register_at_fork(after_in_child=_after_fork)


def _parts(file: BinaryIO, at_once: int) -> Iterator[bytes]:
    """The parts of a file; tells how much of it is sent at least."""
    while part := file.read(PART_SIZE):
        yield part
        meter.tell(max(0, file.tell() - at_once * PART_SIZE))
    meter.tell(file.tell())


def _attributes(name: str) -> Attributes:
    """What caches between readers and the store are told; see docs/how-to/object-storage.md."""
    is_listing = name.startswith("info/")
    return {"Cache-Control": "no-cache" if is_listing else "public, max-age=31536000, immutable"}


def _rounded(seconds: float) -> float:
    """Up to a power of two: a few stores do for all waits."""
    return 2.0 ** math.ceil(math.log2(max(seconds, _LEAST_S)))


def _span(seconds: float) -> str:
    return f"{math.ceil(seconds * 1000)}ms"
