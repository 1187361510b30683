"""Commit and push to a branch that others push to as well; run as a program, see `main`. And who won, checked.

Whoever loses fetches, takes the branch as it is now and commits again. For any remote: `wrong` compares what the racers
were told with the history that is there in the end.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import shardfs
from shardfs.errors import NotFastForwardError, RefChangedError
from shardfs.formats.ids import CommitId
from shardfs.history import walk
from shardfs.repository import Repository
from tests import stores

MAIN = "refs/heads/main"


class Told(NamedTuple):
    """What a racer was told about one commit of its own."""

    commit: str
    outcome: Literal["accepted", "rejected"]


def race(project: Path, name: str, pushes: int) -> Iterator[Told]:
    """Push so many commits from a clone, one after the other, whatever others do meanwhile."""
    with shardfs.open(project) as repo:
        for number in range(pushes):
            while True:
                commit = stores.commit(repo.store, {f"{name}/{number}": os.urandom(1000)}, message=f"{name} {number}")
                try:
                    repo.push()
                except (RefChangedError, NotFastForwardError):
                    yield Told(commit.hex(), "rejected")
                    _take_theirs(repo, commit)
                else:
                    yield Told(commit.hex(), "accepted")
                    break


def history(store: Path) -> list[str]:
    """The commits of the main branch of a repository, newest first."""
    with shardfs.open(store) as repo:
        tip = repo.tip("main")
        assert tip is not None
        return [id_.hex() for id_, _ in walk.first_parents(repo.objects, tip)]


def wrong(found: Sequence[str], begun_with: Sequence[str], told: Iterable[Told]) -> list[str]:
    """What of `found`, a history that began with some commits, is not what racers were told."""
    accepted: Counter[str] = Counter()
    rejected: set[str] = set()
    for commit, outcome in told:
        if outcome == "accepted":
            accepted[commit] += 1
        else:
            rejected.add(commit)
    there = Counter(found)
    expected = Counter(begun_with) + accepted
    return [
        *(f"{commit[:12]} was accepted and is not in the history" for commit in expected - there),
        *(f"{commit[:12]} is in the history and nobody pushed it" for commit in there - expected),
        *(f"{commit[:12]} was rejected and is in the history" for commit in rejected & there.keys()),
    ]


def _take_theirs(repo: Repository, mine: CommitId) -> None:
    repo.fetch()
    theirs = repo.ref("refs/remotes/origin/main")
    repo.store.refs.move(MAIN, mine, theirs, message="race: take theirs")


def main() -> None:
    """Arguments: a clone, a name, a number of pushes. Waits for a line, then prints a line of JSON for each push."""
    print("ready", flush=True)
    sys.stdin.readline()
    for told in race(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])):
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
