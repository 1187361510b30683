"""Random histories of models, optimized now and then: every version reads as it was committed, no chain is too long."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shardfs
from shardfs.formats.ids import Kind
from shardfs.maintenance.hops import hops
from shardfs.repository import Repository
from tests import models
from tests.models import Weights
from tests.stores import local_entries

NAMES = ("layer.0", "layer.1", "layer.2")
FILES = ("model.safetensors", "copy.safetensors")
some_names = st.sets(st.sampled_from(NAMES), min_size=1)

steps = st.one_of(
    st.tuples(st.just("train"), st.sampled_from(FILES), some_names),
    st.tuples(st.just("train"), st.just(FILES[0]), st.just(set(NAMES))),
    st.tuples(st.just("reset"), st.sampled_from(FILES), some_names),
    st.tuples(st.just("zero"), st.sampled_from(FILES), some_names),
    st.tuples(st.just("grow"), st.sampled_from(FILES), some_names),
    st.tuples(st.just("copy"), st.sampled_from(FILES), st.just(set[str]())),
    st.tuples(st.just("branch"), st.integers(0, 3)),
    st.tuples(st.just("switch"), st.integers(0, 3)),
    st.tuples(st.just("tag"), st.integers(0, 3)),
    st.tuples(st.just("optimize"), st.just(0)),
    st.tuples(st.just("gc"), st.just(0)),
)


class _History:
    """A repository, the models in its work tree, and what every version must read as."""

    def __init__(self, repo: Repository) -> None:
        self.repo = repo
        self.models: dict[str, dict[str, Weights]] = {"main": {name: models.weights(1) for name in FILES[:1]}}
        self.number = 0
        self.commit()

    @property
    def here(self) -> dict[str, Weights]:
        return self.models[self.repo.current_branch() or ""]

    def commit(self) -> None:
        self.number += 1
        models.commit(self.repo, {**self.here, "number": str(self.number).encode()})

    def do(self, step: tuple[object, ...]) -> None:
        match step:
            case "optimize", _:
                self.repo.optimize(grace_s=0)
            case "gc", _:
                self.repo.gc(grace_s=0)
            case "tag", int(back):
                self.number += 1
                self.repo.create_tag(f"t{self.number}", self._back(back))
            case "branch", int(back) if back == 0:
                self.number += 1
                name = f"b{self.number}"
                self.models[name] = dict(self.here)
                self.repo.create_branch(name)
            case "switch", int(number):
                names = sorted(self.repo.branches())
                self.repo.switch(names[number % len(names)])
            case str(what), str(file), set(names):
                self.change(what, file, names)
                self.commit()

    def change(self, what: str, file: str, names: set[str]) -> None:
        before = self.here.get(file) or self.here[FILES[0]]
        if what == "train":
            self.here[file] = models.trained(before, self.number, tuple(names))
        elif what == "copy":
            self.here[FILES[1]] = before
        else:
            fresh = models.weights(self.number)
            made = {
                name: {
                    "reset": fresh[name],
                    "zero": np.zeros_like(before[name]),
                    "grow": np.vstack([before[name], fresh[name][:8]]),
                }[what]
                for name in names
            }
            self.here[file] = before | made

    def _back(self, count: int) -> str:
        return f"HEAD~{min(count, len(list(self.repo.log())) - 1)}"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, min_size=3, max_size=14), st.sampled_from([1, 2, 8]))
def test_every_version_reads_as_it_was_committed(todo: list[tuple[object, ...]], depth: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shardfs.init(folder).close()
        Path(folder, ".shardfs/config.toml").write_text(f"format = 1\n[store]\nchain_depth = {depth}\n")
        with shardfs.open(folder) as repo:
            history = _History(repo)
            for step in todo:
                history.do(step)
            before = models.contents(repo)
            report = repo.optimize(grace_s=0)
            assert report.problems == []
            assert models.contents(repo) == before
            assert repo.verify().ok
            others = {
                commit.hex() for commit in (repo.branches() | repo.tags()).values() if commit != repo.head_commit()
            }
            assert all(max(models.depths(repo, rev)) <= min(2, depth) for rev in others)
            assert all(max(models.depths(repo, id_.hex())) <= depth for id_, _ in repo.log())
            entries = [entry for _, entry in local_entries(repo.store, [Kind.CHUNK])]
            stored = {entry.id for entry in entries}
            assert all(stored.issuperset(entry.bases) for entry in entries)
            again = repo.optimize(grace_s=0)
            assert (again.encoded, again.rewritten) == (0, 0)


@given(st.integers(0, 300), st.integers(1, 16))
def test_hops_are_not_deeper_than_allowed(count: int, depth: int) -> None:
    depths = [0]
    for number, base in enumerate(hops(count, depth), start=1):
        assert 0 <= base < number
        depths.append(depths[base] + 1)
    assert len(depths) == count + 1
    assert max(depths) == min(count, depth)
