"""Repeats: what is repeated, how long, and what comes out in the end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from shardfs.errors import (
    PackNotFoundError,
    RefChangedError,
    RemoteDeniedError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    RemoteUnreachableError,
    RepositoryNotFoundError,
    ShardfsError,
)
from shardfs.formats.ids import CommitId, PackId
from shardfs.formats.ref import PackSize
from shardfs.remotes import deadline, meter
from shardfs.remotes.base import RemoteRefs
from shardfs.remotes.retry import RetryingRemote

PACK = PackId(b"\1" * 32)
COMMIT = CommitId(b"\2" * 32)


class Flaky:
    """A remote each of whose calls runs `behave`, which raises or returns."""

    name = "flaky"
    url = "flaky://"
    knows_ids = True
    resumes = False

    def __init__(self, behave: Callable[[int], None]) -> None:
        self.calls = 0
        self.closed = False
        self._behave = behave

    def _call(self) -> None:
        self.calls += 1
        self._behave(self.calls)

    def refs(self) -> RemoteRefs:
        self._call()
        return RemoteRefs(None, {})

    def list_packs(self) -> list[PackSize]:
        self._call()
        return []

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        self._call()
        return pack_id[offset : offset + length]

    def has(self, ids: Sequence[bytes]) -> list[bool]:
        self._call()
        return [True] * len(ids)

    def put_pack(self, path: Path, pack_id: PackId) -> None:
        self._call()

    def update_ref(self, name: str, old: CommitId | None, new: CommitId | None) -> None:
        self._call()

    def close(self) -> None:
        self.closed = True


def failing(error: Exception, times: int = 10**9) -> Callable[[int], None]:
    def behave(call: int) -> None:
        if call <= times:
            raise error

    return behave


CALLS: list[Callable[[RetryingRemote], object]] = [
    lambda r: r.refs(),
    lambda r: r.list_packs(),
    lambda r: r.read_pack(PACK, 0, 3),
    lambda r: r.has([PACK]),
    lambda r: r.put_pack(Path("x"), PACK),
    lambda r: r.update_ref("refs/heads/main", None, COMMIT),
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("error", [RemoteUnavailableError("away"), RemoteTimeoutError("slow")])
def test_trouble_is_overcome(call: Callable[[RetryingRemote], object], error: Exception) -> None:
    pauses: list[float] = []
    flaky = Flaky(failing(error, 3))
    call(RetryingRemote(flaky, 60, pauses.append))
    assert flaky.calls == 4
    assert len(pauses) == 3
    assert all(0 < pause <= 2 for pause in pauses)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "error",
    [
        RemoteDeniedError("no"),
        RemoteProtocolError("nonsense"),
        RefChangedError("moved", COMMIT),
        RepositoryNotFoundError("nothing"),
        PackNotFoundError("gone"),
        ZeroDivisionError("bug"),
    ],
)
def test_what_cannot_help_is_not_repeated(call: Callable[[RetryingRemote], object], error: Exception) -> None:
    flaky = Flaky(failing(error))
    with pytest.raises(type(error)) as caught:
        call(RetryingRemote(flaky, 60, lambda _: None))
    assert caught.value is error
    assert flaky.calls == 1


def test_pauses_grow_up_to_a_bound() -> None:
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 40:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RetryingRemote(Flaky(failing(RemoteUnavailableError("away"))), 10_000, sleep).refs()
    assert sum(pauses[:3]) < 2
    assert 3 < sum(pauses[-10:]) / 10 <= 10
    assert max(pauses) <= 10


@pytest.mark.parametrize("call", CALLS)
def test_last_error_comes_out_at_the_deadline(call: Callable[[RetryingRemote], object]) -> None:
    numbers = itertools.count()

    def behave(_: int) -> None:
        raise RemoteUnavailableError(f"attempt {next(numbers)}")

    flaky = Flaky(behave)
    started = time.monotonic()
    with pytest.raises(RemoteUnavailableError, match=r"attempt [1-9]"):
        call(RetryingRemote(flaky, 0.6))
    assert time.monotonic() - started < 1.5
    assert flaky.calls > 1


def test_place_that_was_never_reached_gets_three_attempts() -> None:
    flaky = Flaky(failing(RemoteUnreachableError("refused")))
    with pytest.raises(RemoteUnreachableError):
        RetryingRemote(flaky, 60, lambda _: None).refs()
    assert flaky.calls == 3


def test_place_that_was_reached_once_is_waited_for() -> None:
    flaky = Flaky(lambda call: failing(RemoteUnreachableError("refused"))(call) if 1 < call < 10 else None)
    remote = RetryingRemote(flaky, 60, lambda _: None)
    remote.refs()
    remote.refs()
    assert flaky.calls == 10


def test_server_says_when_to_come_back() -> None:
    pauses: list[float] = []
    flaky = Flaky(failing(RemoteUnavailableError("busy", retry_after_s=7), 2))
    RetryingRemote(flaky, 60, pauses.append).refs()
    assert pauses == [7, 7]


def test_coming_back_after_the_deadline_is_an_error_now() -> None:
    flaky = Flaky(failing(RemoteUnavailableError("busy", retry_after_s=100)))
    with pytest.raises(RemoteUnavailableError):
        RetryingRemote(flaky, 60, lambda _: pytest.fail("slept")).refs()
    assert flaky.calls == 1


def test_limit_of_the_caller_ends_repeats() -> None:
    flaky = Flaky(failing(RemoteUnavailableError("busy", retry_after_s=5)))
    with pytest.raises(RemoteUnavailableError), deadline.limit(1):
        RetryingRemote(flaky, 60, lambda _: pytest.fail("slept")).refs()


def test_attempts_know_the_time_that_is_left_and_uploads_take_theirs() -> None:
    left: list[float] = []
    flaky = Flaky(lambda _: left.append(deadline.remaining()))
    remote = RetryingRemote(flaky, 5)
    remote.refs()
    remote.put_pack(Path("x"), PACK)
    assert 4 < left[0] <= 5
    assert left[1] > 1e9
    assert deadline.remaining() > 1e9


def test_uploads_that_break_late_are_begun_again_a_few_times() -> None:
    def behave(call: int) -> None:
        time.sleep(0.06)
        raise RemoteUnavailableError("broke")

    flaky = Flaky(behave)
    with pytest.raises(ShardfsError):
        RetryingRemote(flaky, 0.05, lambda _: None).put_pack(Path("x"), PACK)
    assert flaky.calls <= 6


def test_nested_limits_count_the_nearest() -> None:
    with deadline.limit(10):
        with deadline.limit(100):
            assert deadline.remaining() <= 10
        with deadline.limit(1):
            assert deadline.remaining() <= 1
        assert 9 < deadline.remaining() <= 10


def test_the_rest_passes_through() -> None:
    flaky = Flaky(lambda _: None)
    remote = RetryingRemote(flaky, 1)
    assert (remote.name, remote.url) == ("flaky", "flaky://")
    assert remote.read_pack(PACK, 0, 2) == b"\1\1"
    remote.close()
    assert flaky.closed


def test_an_upload_that_gets_further_each_time_is_never_given_up() -> None:
    def creep(attempt: int) -> None:
        meter.tell(attempt)
        time.sleep(0.02)
        if attempt < 30:
            raise RemoteUnavailableError("the link died")

    flaky = Flaky(creep)
    RetryingRemote(flaky, 0.25, sleep=lambda _: None).put_pack(Path("x"), PACK)
    assert flaky.calls == 30


def test_an_upload_that_gets_nowhere_is_given_up() -> None:
    def stay(_: int) -> None:
        meter.tell(7)
        time.sleep(0.02)
        raise RemoteUnavailableError("the link died")

    with pytest.raises(RemoteUnavailableError):
        RetryingRemote(Flaky(stay), 0.25, sleep=lambda _: None).put_pack(Path("x"), PACK)


def test_whoever_waits_for_an_upload_is_told_how_far_it_is() -> None:
    told: list[int] = []
    with meter.watch(told.append):
        RetryingRemote(Flaky(meter.tell)).put_pack(Path("x"), PACK)
    meter.tell(2)
    assert told == [1]
