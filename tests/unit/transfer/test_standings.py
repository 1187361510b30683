"""Which remote is asked first."""

from __future__ import annotations

from shardfs.transfer.standings import FIRST_PAUSE_S, LEAST_PATIENCE_S, LONGEST_PAUSE_S, Standings

LARGE = 1 << 20


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def order(standings: Standings) -> list[str]:
    return sorted(["zebra", "origin", "lan"], key=standings.rank)


def test_the_order_of_the_settings_counts_until_one_fails() -> None:
    standings = Standings(["lan", "origin"])
    assert order(standings) == ["lan", "origin", "zebra"]
    standings.failed("lan")
    assert order(standings) == ["origin", "zebra", "lan"]
    standings.came("lan", LARGE, 0.1)
    assert order(standings) == ["lan", "origin", "zebra"]


def test_one_look_for_each_pause_and_pauses_grow() -> None:
    clock = Clock()
    standings = Standings(clock=clock)
    assert not standings.is_due("lan")
    pause_s = FIRST_PAUSE_S
    standings.failed("lan")
    for _ in range(8):
        for _ in range(20):
            standings.failed("lan")  # what was on its way
        clock.now += 0.99 * pause_s
        assert not standings.is_due("lan")
        clock.now += 0.02 * pause_s
        assert [standings.is_due("lan") for _ in range(3)] == [True, False, False]
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def test_a_remote_that_is_slow_with_much_is_not_believed_for_answering_little() -> None:
    clock = Clock()
    standings = Standings(clock=clock)
    for _ in range(3):
        standings.failed("far")
        clock.now += LONGEST_PAUSE_S
        assert standings.is_due("far")
        standings.came("far", 4096, 0.01)
        assert not standings.is_down("far")
    standings.failed("far")
    clock.now += 1.01 * FIRST_PAUSE_S
    assert not standings.is_due("far")  # the pauses have grown all the same
    standings.came("far", LARGE, LEAST_PATIENCE_S + 1)
    assert standings.is_down("far")
    standings.came("far", LARGE, 0.01)
    standings.failed("far")
    clock.now += 1.01 * FIRST_PAUSE_S
    assert standings.is_due("far")


def test_patience_follows_what_is_usual() -> None:
    standings = Standings()
    assert standings.patience_s("a", ["b"], LARGE, 30.0) == LEAST_PATIENCE_S
    standings.came("a", LARGE, 2.0)
    assert standings.patience_s("a", ["b"], LARGE, 30.0) == 6.0
    assert standings.patience_s("a", ["b"], 8 * LARGE, 30.0) == 7.5  # never more than a part of the deadline
    standings.came("b", LARGE, 0.3)
    assert 0.8 < standings.patience_s("a", ["b"], LARGE, 30.0) < 1.0
