"""Counters of remotes, as stats and metrics show them."""

from __future__ import annotations

from pathlib import Path

import pytest

import shardfs
from shardfs.errors import RemoteUnreachableError
from shardfs.mount import metrics
from tests.serving import serving
from tests.stores import make_store

pytestmark = pytest.mark.network


def test_a_clone_counts_what_it_asked_for(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "srv" / "demo")
    store.close()
    with serving(tmp_path / "srv") as server:
        shardfs.clone(f"{server.url}/demo", tmp_path / "copy").close()
        with shardfs.open(tmp_path / "copy") as repository:
            assert repository.stats_snapshot()["remotes"].attempts == {}
            repository.fetch()
            for entry in repository.entries("HEAD"):
                assert entry
            repository.add_remote("gone", "http://127.0.0.1:1/demo")
            with pytest.raises(RemoteUnreachableError):
                repository.fetch("gone")
            counts = repository.stats_snapshot()["remotes"]
            page = metrics.text(repository.stats_snapshot(), {})
    assert counts.attempts["origin"] >= 2
    assert counts.failures == {"origin": 0, "gone": 3}
    assert counts.in_flight == {"origin": 0, "gone": 0}
    assert 'shardfs_remotes_failures_total{name="gone"} 3' in page
    assert 'shardfs_remotes_limit{name="origin"} 16' in page
