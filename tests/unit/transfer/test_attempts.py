"""Whom to ask again for a payload that came damaged."""

from __future__ import annotations

from shardfs.errors import PackNotFoundError, RemoteUnavailableError
from shardfs.formats.ids import Kind, PackId
from shardfs.formats.pack import Entry
from shardfs.store.index import Location
from shardfs.transfer.attempts import Attempts

ENTRY = Entry(bytes(32), Kind.CHUNK, 0, 16, 10, 10)
AWAY = RemoteUnavailableError("away")


def at(place: str) -> Location:
    return Location(place, PackId(bytes(32)), 1000, ENTRY)


def test_who_gave_wrong_bytes_is_asked_first_past_caches_and_once() -> None:
    attempts = Attempts([at("a"), at("b")], "b")
    first = attempts.take()
    assert (first.location.place, first.is_fresh, first.others) == ("b", True, ("a",))
    assert attempts.damaged(first)
    second = attempts.take()
    assert (second.location.place, second.is_fresh, second.others) == ("a", False, ())
    assert not attempts.damaged(second)
    third = attempts.take()
    assert (third.location.place, third.is_fresh) == ("a", True)
    assert attempts.damaged(third)
    assert not attempts


def test_who_does_not_answer_gets_time_after_all_others() -> None:
    attempts = Attempts([at("a"), at("b"), at("c")], "")
    asked = []
    while attempts:
        attempt = attempts.take()
        asked.append((attempt.location.place, bool(attempt.others)))
        attempts.failed(attempt, AWAY)
    assert asked == [("a", True), ("b", True), ("c", True), ("a", False), ("b", False), ("c", False)]


def test_who_has_it_no_longer_is_not_asked_again() -> None:
    attempts = Attempts([at("a"), at("b")], "")
    attempts.failed(attempts.take(), PackNotFoundError("gone"))
    assert attempts.take().location.place == "b"
    assert not attempts
