"""Which chunks a new delta may name: chains stay short, without circles, and are asked for by several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import pairwise

import pytest

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.formats.ids import Kind, chunk_id
from shardfs.formats.pack import Entry
from shardfs.store.chains import Chains

Graph = Mapping[str, str]


def ident(name: str) -> bytes:
    return chunk_id(name.encode())


class Stored:
    """Chunks by name, each with the names of its bases; remembers what was asked for."""

    def __init__(self, bases: Graph, kind: Kind = Kind.CHUNK) -> None:
        self.entries = {
            ident(name): Entry(ident(name), kind, 0, 0, 1, len(names) + 7, tuple(ident(base) for base in names.split()))
            for name, names in bases.items()
        }
        self.asked: list[bytes] = []

    def __call__(self, ids: Iterable[bytes]) -> dict[bytes, Entry]:
        wanted = list(ids)
        self.asked += wanted
        return {id_: self.entries[id_] for id_ in wanted if id_ in self.entries}


def line(length: int) -> Graph:
    """v0 is whole, each of the others is a delta against the one before."""
    return {"v0": "", **{f"v{n}": f"v{n - 1}" for n in range(1, length)}}


def chains(bases: Graph, max_depth: int = 8) -> Chains:
    made = Chains(Stored(bases), max_depth)
    made.learn(map(ident, bases))
    return made


def bases_of(known: Chains, name: str, for_: str = "new") -> list[bytes]:
    return [ref.id for ref in known.bases(ident(name), ident(for_))]


def test_chains_of_any_length_have_a_depth() -> None:
    length = 5000
    known = chains(line(length))
    assert known.depth(ident(f"v{length - 1}")) > MAX_BASE_DEPTH
    assert bases_of(known, f"v{length - 1}") == []
    assert known.depth(ident("v2")) == 2


def test_the_longest_way_counts() -> None:
    known = chains({"a": "", "b": "a", "c": "a b", "d": "c a", "e": "a d"})
    assert [known.depth(ident(name)) for name in "edcba"] == [4, 3, 2, 1, 0]


def test_a_whole_chunk_is_the_only_base_of_the_next() -> None:
    known = chains(line(1))
    assert bases_of(known, "v0") == [ident("v0")]
    assert known.bases(ident("v0"), ident("new"))[0].size == 7


def test_a_delta_comes_with_its_own_base() -> None:
    assert bases_of(chains(line(4)), "v3") == [ident("v3"), ident("v2")]


def test_a_chain_that_is_as_long_as_it_may_be_begins_anew_at_its_end() -> None:
    known = chains(line(6), max_depth=5)
    assert bases_of(known, "v4") == [ident("v4"), ident("v3")]
    assert bases_of(known, "v5") == [ident("v0")]


def test_no_delta_is_made_where_chains_may_have_no_links() -> None:
    assert bases_of(chains(line(3), max_depth=0), "v2") == []


def test_the_deeper_of_two_bases_counts() -> None:
    known = chains({**line(5), "both": "v0 v4"})
    assert known.depth(ident("both")) == 5


@pytest.mark.parametrize("for_", ["v3", "v2", "v0"])
def test_a_chunk_is_no_base_of_what_it_is_made_of(for_: str) -> None:
    assert bases_of(chains(line(4)), "v3", for_) == []


def test_a_chunk_below_the_second_base_is_refused_too() -> None:
    known = chains({"a": "", "b": "", "c": "b", "top": "a c"})
    assert bases_of(known, "top", "b") == []


@pytest.mark.parametrize(
    "bases",
    [{"a": "a"}, {"a": "b", "b": "a"}, {"a": "gone"}, {"a": "b", "b": "gone"}, {}],
    ids=["itself", "circle", "lost base", "lost base of a base", "unknown"],
)
def test_a_chunk_that_nobody_can_decode_is_no_base(bases: Graph) -> None:
    assert bases_of(chains({"x": "", **bases}), "a") == []


def test_a_chain_deeper_than_readers_go_is_no_base() -> None:
    known = chains(line(40), max_depth=MAX_BASE_DEPTH)
    assert bases_of(known, f"v{MAX_BASE_DEPTH}") == [ident("v0")]
    assert bases_of(known, "v39") == []


def test_an_object_is_no_base() -> None:
    known = Chains(Stored({"tree": ""}, Kind.TREE), 8)
    known.learn([ident("tree")])
    assert bases_of(known, "tree") == []


def test_chains_are_looked_up_once() -> None:
    stored = Stored(line(9))
    known = Chains(stored, 8)
    known.learn([ident("v8")])
    assert sorted(stored.asked) == sorted(stored.entries)
    known.learn(map(ident, line(9)))
    assert len(stored.asked) == 9


def test_an_endless_chain_is_followed_only_as_far_as_readers_go() -> None:
    stored = Stored(line(1000))
    Chains(stored, 8).learn([ident("v999")])
    assert len(stored.asked) == MAX_BASE_DEPTH + 1


class Paused(Entry):
    """An entry that keeps whoever looks at its bases waiting."""

    reached = threading.Event()
    go_on = threading.Event()

    @property
    def bases(self) -> tuple[bytes, ...]:
        self.reached.set()
        self.go_on.wait(10)
        return super().bases


def test_a_thread_is_not_told_what_another_has_not_finished_to_find_out() -> None:
    stored = Stored(line(8))
    known = Chains(stored, 8)
    known.learn([ident("v7")])
    known._entries[ident("v3")] = Paused(*stored.entries[ident("v3")])
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(bases_of, known, "v7")
        Paused.reached.wait(10)
        second = pool.submit(bases_of, known, "v7")
        wait([second], 0.1)
        Paused.go_on.set()
        assert first.result() == second.result() == [ident("v7"), ident("v6")]


def test_a_series_never_gets_deeper_than_it_may() -> None:
    """Each version against the one before, as commits do it."""
    for limit in (1, 3, 8, 16):
        stored = Stored(line(1))
        for old, new in pairwise(f"v{n}" for n in range(40)):
            known = Chains(stored, limit)
            known.learn([ident(old)])
            names = tuple(ref.id for ref in known.bases(ident(old), ident(new)))
            assert names
            stored.entries[ident(new)] = Entry(ident(new), Kind.CHUNK, 0, 0, 1, 7, names)
        known.learn(stored.entries)
        depths = [known.depth(ident(f"v{n}")) for n in range(40)]
        assert max(depths) == limit
        assert depths.count(0) == 1
