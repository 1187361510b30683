"""Many writers move refs in one object store, in every order of their requests, while old states are deleted.

Whoever is told that a ref moved must have moved it, once, from the state that was in force.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from shardfs.errors import RefChangedError, RemoteTimeoutError, RemoteUnavailableError
from shardfs.formats.ids import CommitId
from shardfs.formats.refstate import FIRST_ID, RefState, state_number
from shardfs.remotes.objectstore import remote as remote_module
from shardfs.remotes.objectstore import states as states_module
from shardfs.remotes.objectstore.bucket import Bucket, Listed
from shardfs.remotes.objectstore.remote import ObjectStoreRemote
from shardfs.remotes.retry import RetryingRemote

WRITERS = 4
BRANCHES = ["refs/heads/main", "refs/heads/main", "refs/heads/main", "refs/heads/other"]
TURN_S = 20.0


class Turns:
    """Lets one thread go on at a time, to its next request."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._turn: int | None = None
        self._left: set[int] = set()
        self._local = threading.local()

    def run(self, order: list[int], works: list[Callable[[], None]]) -> None:
        """Run each work in a thread; `order` says whose request comes next, then they take turns."""
        self._left = set(range(len(works)))
        threads = [threading.Thread(target=self._work, args=(n, work)) for n, work in enumerate(works)]
        for thread in threads:
            thread.start()
        for number in self._all(order):
            with self._changed:
                self._turn = number
                self._changed.notify_all()
                assert self._changed.wait_for(lambda: self._turn is None, TURN_S)
        for thread in threads:
            thread.join()

    def _all(self, order: list[int]) -> Iterator[int]:
        yield from (number for number in order if number in self._left)
        while self._left:
            yield from sorted(self._left)

    def _work(self, number: int, work: Callable[[], None]) -> None:
        self._local.number = number
        self._begin()
        try:
            work()
        finally:
            with self._changed:
                self._left.discard(number)
                self._turn = None
                self._changed.notify_all()

    def _begin(self) -> None:
        number = self._local.number
        with self._changed:
            assert self._changed.wait_for(lambda: self._turn == number, TURN_S)

    def next(self) -> None:
        """The request of this thread is done: let somebody else go on, and wait."""
        if not hasattr(self._local, "number"):
            return
        with self._changed:
            self._turn = None
            self._changed.notify_all()
        self._begin()


class Watched(Bucket):
    """A bucket that writes down which states were ever in force, and whose requests wait for their turn."""

    def __init__(self, turns: Turns, silent: Collection[int]) -> None:
        """`silent`: objects that are made without an answer, by how many were made before."""
        store = MemoryStore()
        super().__init__(lambda *_: store, "memory:", 30)
        self._turns = turns
        self._silent = silent
        self._made = 0
        self.in_force: list[RefState] = []

    def get(self, name: str, limit: int) -> bytes | None:
        self._turns.next()
        return super().get(name, limit)

    def list(self, prefix: str) -> list[Listed]:
        self._turns.next()
        return super().list(prefix)

    def create(self, name: str, data: bytes) -> bool:
        self._turns.next()
        made = super().create(name, data)
        number = state_number(name.removeprefix("refs/"))
        if made and number is not None and (not self.in_force or number > self.in_force[-1].number):
            self.in_force.append(RefState.from_bytes(data))
        if number:
            self._made += 1
            if self._made in self._silent:
                msg = "no answer in time"
                raise RemoteTimeoutError(msg)
        return made

    def put(self, name: str, data: bytes) -> None:
        self._turns.next()
        super().put(name, data)

    def delete(self, names: Sequence[str]) -> None:
        for name in reversed(names):  # any order is allowed
            self._turns.next()
            super().delete([name])


@contextmanager
def hurried() -> Iterator[None]:
    """All states but the last go after each move, and nobody pauses."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states_module, "KEPT", 1)
        patch.setattr(remote_module, "KEPT", 1)
        patch.setattr(remote_module, "_PAUSE_S", 0.0)
        yield


def commit(writer: int, step: int) -> CommitId:
    return CommitId(bytes([writer, step]) * 16)


# One writer makes a number of requests while the others sleep: enough for a move, or several, or stops amid one.
RUNS = st.lists(st.tuples(st.integers(0, WRITERS - 1), st.integers(1, 40)), max_size=20)


@given(runs=RUNS, silent=st.sets(st.integers(0, 20)), gives_up=st.sets(st.integers(0, WRITERS - 1)))
def test_who_is_told_that_a_ref_moved_moved_it(
    runs: list[tuple[int, int]], silent: set[int], gives_up: set[int]
) -> None:
    """Some get no answer: they ask again, as `RetryingRemote` does, or are killed there."""
    order = [writer for writer, requests in runs for _ in range(requests)]
    turns = Turns()
    bucket = Watched(turns, silent)
    done: dict[CommitId, bool] = {}

    def work(writer: int) -> None:
        web = ObjectStoreRemote(bucket)
        place = web if writer in gives_up else RetryingRemote(web, sleep=lambda _: None)
        for step in range(3):
            new, name = commit(writer, step), BRANCHES[writer]
            try:
                state = web._states.newest()
                place.update_ref(name, None if state is None else state.refs.get(name), new)
                done[new] = True
            except (RefChangedError, RemoteUnavailableError):
                done[new] = False
            except RemoteTimeoutError:
                return

    with hurried():
        turns.run(order, [lambda n=n: work(n) for n in range(WRITERS)])  # type: ignore[misc]
    assert len(done) == WRITERS * 3 or gives_up
    states = bucket.in_force
    assert states[0] == RefState(0, FIRST_ID, None)
    for before, after in pairwise(states):
        assert (after.number, after.previous) == (before.number + 1, before.id)
        assert len({name for name, _ in after.refs.items() ^ before.refs.items()}) == 1
    moved = [c for before, after in pairwise(states) for c in after.refs.values() if c not in before.refs.values()]
    assert len(moved) == len(set(moved))
    assert {c for c, told in done.items() if told} <= set(moved)
    final = ObjectStoreRemote(bucket)
    assert final.refs().refs == states[-1].refs
    # The listing is that of the last state: whoever wrote last has compared last. Who was killed leaves it to the next.
    if gives_up & {c[0] for c in set(moved) - done.keys()}:
        name, tip = next(iter(states[-1].refs.items()))
        final.update_ref(name, tip, tip)
    published = Bucket.get(bucket, "info/refs", 1 << 20)
    assert published is not None
    assert RefState.from_bytes(published) == states[-1]
