"""What another server's repositories have, asked again every second, and remembered while it does not answer."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from blake3 import blake3

from shardfs.errors import FormatError, RemoteError, RemoteTimeoutError, RemoteUnavailableError, RepositoryNotFoundError
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes import deadline
from shardfs.remotes.base import Remote, RemoteRefs

_log = logging.getLogger(__name__)

FRESH_S: Final = 1.0  # a mount asks for refs once a second
_WAIT_S: Final = 5.0  # for an answer, when what was known before does as well
_LOCKS: Final = 64  # repositories that are asked about at the same time
_MAX_FAILURES: Final = 1000  # repositories, of names that clients made up, whose failure is remembered
_PAUSE_S: Final = 2.0  # after a failure, in which nobody waits for another one; then twice as long each time,
_LONGEST_PAUSE_S: Final = 30.0  # up to this


class Listing(NamedTuple):
    """Names and packs of a repository as they were at one time; no name needs a pack that is not among them.

    Attributes:
        refs: the names.
        packs: the packs by id.
        at: when they were asked for, seconds since 1970.
    """

    refs: RemoteRefs
    packs: dict[PackId, PackSize]
    at: float

    @property
    def age_s(self) -> int:
        """Whole seconds since then."""
        return max(0, int(time.time() - self.at))


class _Failure(NamedTuple):
    """How the last attempt failed, and until when (monotonic) nobody waits for another one, after a pause so long."""

    error: RemoteError
    pause_s: float
    until: float


class Listings:
    """Listings by repository. Safe to share between threads.

    Args:
        folder: where they are kept for the next process.
        remote: opens a repository of the other server.
    """

    def __init__(self, folder: Path, remote: Callable[[str], Remote]) -> None:
        self._folder = folder
        self._remote = remote
        self._locks = [threading.Lock() for _ in range(_LOCKS)]
        self._known: dict[str, Listing] = {}
        self._checked: dict[str, float] = {}  # when those that are known were asked for last
        self._failures: dict[str, _Failure] = {}

    def last(self, repository: str) -> Listing | None:
        """What was known of a repository last; nobody is asked, and nothing waited for."""
        return self._known.get(repository)

    def get(self, repository: str) -> Listing:
        """What a repository has: of the last second, or the last that is known while the other server cannot answer.

        Raises:
            RepositoryNotFoundError: there is none. RemoteError: the other server fails, and nothing is known.
        """
        with self._locks[hash(repository) % _LOCKS]:
            now = time.monotonic()
            known = self._known.get(repository) or self._load(repository)
            failure = self._failures.get(repository)
            if failure is not None and now < failure.until:
                if known is None:
                    raise failure.error.with_traceback(None)  # or each time it is raised would add to it
                return known
            if known is None or now - self._checked.get(repository, float("-inf")) >= FRESH_S:
                known = self._ask(repository, known)
            return known

    def _ask(self, repository: str, known: Listing | None) -> Listing:
        """Names before packs: what a name needs is in packs that are listed later."""
        remote, at = self._remote(repository), time.time()
        try:
            with deadline.limit(_WAIT_S if known else 10 * _WAIT_S):
                refs = remote.refs()
                packs = {pack.id: pack for pack in remote.list_packs()}
        except RepositoryNotFoundError:
            self._known.pop(repository, None)
            self._checked.pop(repository, None)
            with suppress(OSError):
                self._path(repository).unlink(missing_ok=True)
            raise
        except RemoteError as error:
            before = self._failures.get(repository)
            if len(self._failures) >= _MAX_FAILURES:
                self._failures.clear()
            pause_s = min(_LONGEST_PAUSE_S, 2 * before.pause_s) if before else _PAUSE_S
            self._failures[repository] = _Failure(error, pause_s, time.monotonic() + pause_s)
            if known is None or not isinstance(error, RemoteUnavailableError | RemoteTimeoutError):
                raise
            if before is None:
                _log.warning("%s: shown as it was %d s ago: %s", repository, known.age_s, error)
            return known
        if self._failures.pop(repository, None) is not None:
            _log.warning("%s: the other server answers again", repository)
        listing = Listing(refs, packs, at)
        if known is None or known[:2] != listing[:2]:
            self._keep(repository, listing)
        self._known[repository], self._checked[repository] = listing, time.monotonic()
        return listing

    def _keep(self, repository: str, listing: Listing) -> None:
        refs = ref_format.refs_to_bytes(*listing.refs).decode()
        packs = ref_format.packs_to_bytes(list(listing.packs.values())).decode()
        text = json.dumps({"repository": repository, "at": listing.at, "refs": refs, "packs": packs})
        path = self._path(repository)
        temp = path.with_name(f".{path.name}-{os.getpid()}-{threading.get_ident()}")
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            temp.write_text(text, "utf-8")
            temp.replace(path)
        except OSError as error:  # a full disk: the next process knows less
            _log.info("%s: not kept for the next start: %s", repository, error)
            with suppress(OSError):
                temp.unlink(missing_ok=True)

    def _load(self, repository: str) -> Listing | None:
        try:
            value = json.loads(self._path(repository).read_text("utf-8"))
            if value["repository"] != repository:
                return None
            packs = ref_format.packs_from_bytes(value["packs"].encode())
            refs = RemoteRefs(*ref_format.refs_from_bytes(value["refs"].encode()))
            found = Listing(refs, {pack.id: pack for pack in packs}, float(value["at"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, FormatError):
            return None
        self._known[repository] = found
        return found

    def _path(self, repository: str) -> Path:
        return self._folder / f"{blake3(repository.encode()).hexdigest()}.json"
