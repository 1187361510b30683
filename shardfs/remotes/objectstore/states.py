"""Numbered states of all refs: compare-and-swap where all that a store can do is refuse to replace an object.

Spec, and why it is sound: docs/design/format/refstate.md.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import wait
from contextlib import suppress
from functools import partial
from typing import Final

from shardfs import threads
from shardfs.errors import FormatError, MalformedError, RemoteError, RemoteProtocolError, RemoteUnavailableError
from shardfs.formats import ref as ref_format
from shardfs.formats.refstate import FIRST_ID, RefState, state_name, state_number
from shardfs.remotes.objectstore.bucket import Bucket, Listed

_log = logging.getLogger(__name__)

FOLDER: Final = "refs"
_GUARD_CONTENT: Final = b"Of many that make an object here at the same moment, one does.\n"
_RIVALS: Final = 8  # that try at the same moment; of a store that looks first and writes later, most go through
_RACES: Final = 3
_START_S: Final = 10.0  # for so many threads to start
KEPT: Final = 100  # states that stay when old ones are deleted
_MAX_SIZE: Final = 64 << 20  # bytes of a state: 500 000 refs
_TRIES: Final = 3  # of reading the newest state while others add and delete


class States:
    """The states in a bucket. Safe to share between threads."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._last: tuple[Listed, RefState] | None = None

    def newest(self) -> RefState | None:
        """The state that is in force; None when the place holds no repository.

        A place that other tools filled has only the listing of refs, which counts as a state then.

        Raises:
            RemoteError: by the store, or what it holds is not a state.
        """
        return self._highest() or self._published()

    def create_first(self) -> RefState:
        """The newest state; made when the place holds none.

        Raises:
            RemoteError: by the store.
        """
        state = self._highest()
        if state is None:
            first = self._published() or RefState(0, FIRST_ID, None)
            self._bucket.create(_path(first.number), first.to_bytes())
            state = self._highest()
        if state is None:
            msg = f"{self._bucket.url}: an object that was just made is not there"
            raise RemoteUnavailableError(msg)
        return state

    def is_guarded(self) -> bool:
        """Whether the store makes an object for one of many that want to: without that, pushes could undo each other.

        It is tried out once; an object remembers for all clients that the store has passed. It names the store, as it
        may be copied to another one with all the rest.

        Raises:
            ConditionUnknownError: the store itself says that it does not. RemoteError: by the store.
        """
        guard = f"{FOLDER}/guard-{self._bucket.identity}"
        if self._bucket.get(guard, len(_GUARD_CONTENT)) is None:
            if not all(self._race() for _ in range(_RACES)):
                return False
            self._bucket.create(guard, _GUARD_CONTENT)
        return True

    def _race(self) -> bool:
        """Whether of many that make one object at the same moment no two do."""
        name, start = f"{FOLDER}/race-{new_id()}", threading.Barrier(_RIVALS)

        def try_it(rival: int) -> bool:
            with suppress(threading.BrokenBarrierError):  # a busy machine: then fewer are there at the same moment
                start.wait(_START_S)
            return self._bucket.create(name, str(rival).encode())

        try:
            rivals = [threads.ask(partial(try_it, rival), "race") for rival in range(_RIVALS)]
            wait(rivals)
            return sum(rival.result() for rival in rivals) <= 1
        finally:
            self._delete([name])

    def add(self, state: RefState) -> bool:
        """Put a state, whose number and `previous` follow the newest one, into force; False when another was faster.

        Raises:
            RemoteError: by the store. The state may be in force all the same.
        """
        if not self._bucket.create(_path(state.number), state.to_bytes()):
            return False
        # The number may have been free because its state was deleted as an old one while this thread slept.
        if max(self._list(), default=0) <= state.number:
            return True
        after = self._bucket.get(_path(state.number + 1), _MAX_SIZE)
        return after is not None and self._parse(after, state.number + 1).previous == state.id

    def thin_out(self) -> None:
        """Delete all but the newest states. Whoever may not delete leaves them."""
        old = sorted(self._list())[:-KEPT]
        if old:
            self._delete([_path(number) for number in old])

    def _delete(self, names: Sequence[str]) -> None:
        try:
            self._bucket.delete(names)
        except RemoteError as error:
            _log.info("what nobody needs any more stays: %s", error)

    def _highest(self) -> RefState | None:
        for _ in range(_TRIES):
            listed = self._list()
            if not listed:
                return None
            state = self._read(listed[max(listed)])
            if state is not None:
                return state
        msg = f"states of refs at {self._bucket.url} come and go faster than they can be read"
        raise RemoteUnavailableError(msg)

    def _list(self) -> dict[int, Listed]:
        found = ((state_number(one.name.rpartition("/")[2]), one) for one in self._bucket.list(FOLDER))
        return {number: one for number, one in found if number is not None and one.name == _path(number)}

    def _read(self, listed: Listed) -> RefState | None:
        last = self._last
        if last is not None and last[0] == listed and listed.tag is not None:
            return last[1]
        data = self._bucket.get(listed.name, _MAX_SIZE)
        if data is None:
            return None
        state = self._parse(data, state_number(listed.name.rpartition("/")[2]))
        self._last = (listed, state)
        return state

    def _parse(self, data: bytes, number: int | None) -> RefState:
        try:
            state = RefState.from_bytes(data)
        except FormatError as error:
            msg = f"{self._bucket.url}/{FOLDER}: {error}"
            raise RemoteProtocolError(msg) from error
        if state.number != number:
            msg = f"{self._bucket.url}/{FOLDER}: state {number} says that it is {state.number}"
            raise RemoteProtocolError(msg)
        return state

    def _published(self) -> RefState | None:
        data = self._bucket.get("info/refs", _MAX_SIZE)
        if data is None:
            return None
        try:
            with suppress(MalformedError):
                return RefState.from_bytes(data)
            return RefState(0, FIRST_ID, None, *ref_format.refs_from_bytes(data))
        except FormatError as error:
            msg = f"{self._bucket.url}/info/refs: {error}"
            raise RemoteProtocolError(msg) from error


def new_id() -> str:
    """A fresh id of a state."""
    return os.urandom(16).hex()


def _path(number: int) -> str:
    return f"{FOLDER}/{state_name(number)}"
