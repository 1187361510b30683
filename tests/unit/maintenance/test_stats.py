from __future__ import annotations

from shardfs.maintenance.stats import stats
from shardfs.store.store import Store
from tests.stores import CHUNK_SIZE, commit, noise
from tests.unit.maintenance.conftest import objects_of

DATA = noise(1, 10 * CHUNK_SIZE)


def test_counts_and_bytes(store: Store) -> None:
    first = commit(store, {"a": DATA, "deep/b": b"12"}, message="first\n\nmore")
    second = commit(store, {"a": DATA, "c/deep/b": b"12", "deep/b": b"12"}, message="second")
    found = stats(store, objects_of(store), [second])
    assert found.logical_bytes == 2 * len(DATA) + 6
    assert found.stored_bytes == sum(p.stat().st_size for p in store.layout.packs.rglob("*.pack"))
    assert (found.commits, found.packs, found.chunks, found.manifests, found.files) == (2, 2, 11, 1, 5)
    assert [(v.id, v.subject, v.files) for v in found.versions] == [(first, "first", 2), (second, "second", 3)]
    assert found.versions[0].new_bytes > len(DATA)
    assert found.versions[1].new_bytes < 1000
    assert found.objects == found.commits + found.trees + found.manifests


def test_nothing(store: Store) -> None:
    assert stats(store, objects_of(store), []).versions == ()
