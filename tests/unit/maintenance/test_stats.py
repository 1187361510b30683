from __future__ import annotations

from itertools import pairwise

from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.formats.ids import CommitId, Kind
from shardfs.maintenance.stats import stats, stats_up_to
from shardfs.store.store import Store
from tests.stores import CHUNK_SIZE, changed, commit, local_entries, noise, put_delta, sql
from tests.unit.maintenance.conftest import objects_of

DATA = noise(1, 10 * CHUNK_SIZE)
ONE = noise(2, CHUNK_SIZE)


def commit_chain(store: Store) -> list[CommitId]:
    """Three versions of one chunk; each but the first is stored as a difference to the one before."""
    versions = [ONE, changed(ONE, 1), changed(ONE, 2)]
    with store.batch() as batch:
        for old, new in pairwise(versions):
            put_delta(batch, new, old)
    return [commit(store, {"model": data}, message=f"version {n}") for n, data in enumerate(versions, 1)]


def test_counts_and_bytes(store: Store) -> None:
    first = commit(store, {"a": DATA, "deep/b": b"12"}, message="first\n\nmore")
    second = commit(store, {"a": DATA, "c/deep/b": b"12", "deep/b": b"12"}, message="second")
    found = stats(store, objects_of(store), [second])
    assert found.logical_bytes == 2 * len(DATA) + 6
    assert found.deduplicated_bytes == len(DATA) + 2
    assert found.stored_bytes == sum(p.stat().st_size for p in store.layout.packs.rglob("*.pack"))
    assert (found.commits, found.packs, found.chunks, found.manifests, found.files) == (2, 2, 11, 1, 5)
    assert [(v.id, v.subject, v.files) for v in found.versions] == [(first, "first", 2), (second, "second", 3)]
    assert found.versions[0].new_bytes > len(DATA)
    assert found.versions[1].new_bytes < 1000
    assert found.objects == found.commits + found.trees + found.manifests


def test_nothing(store: Store) -> None:
    found = stats(store, objects_of(store), [])
    assert (found.versions, found.codecs, found.deduplicated_bytes) == ((), (), 0)


def test_chunks_by_codec_with_their_chains(store: Store) -> None:
    tip = commit_chain(store)[-1]
    found = {row.codec: row for row in stats(store, objects_of(store), [tip]).codecs}
    assert list(found) == ["raw", "patch"]
    assert (found["raw"].chunks, found["raw"].raw_bytes, found["raw"].max_depth) == (1, CHUNK_SIZE, 0)
    patch = found["patch"]
    assert (patch.chunks, patch.raw_bytes, patch.mean_depth, patch.max_depth) == (2, 2 * CHUNK_SIZE, 1.5, 2)
    assert patch.stored_bytes < 200
    stored = [e.stored_size for _, e in local_entries(store, [Kind.CHUNK])]
    assert sum(row.stored_bytes for row in found.values()) == sum(stored)


def test_what_a_version_is_a_difference_to_counts_with_it(store: Store) -> None:
    with store.batch() as batch:
        put_delta(batch, changed(ONE, 1), ONE)
    tip = commit(store, {"model": changed(ONE, 1)})
    found = stats_up_to(store, objects_of(store), tip)
    assert found.deduplicated_bytes == CHUNK_SIZE
    assert [(row.codec, row.chunks) for row in found.codecs] == [("raw", 1), ("patch", 1)]
    assert found.stored_bytes == found.versions[0].new_bytes > CHUNK_SIZE


def test_each_chunk_counts_once_also_when_a_later_version_has_what_an_older_one_needs(store: Store) -> None:
    with store.batch() as batch:
        put_delta(batch, changed(ONE, 1), ONE)
    commit(store, {"model": changed(ONE, 1)}, message="first")
    tip = commit(store, {"model": ONE}, message="second")
    found = stats(store, objects_of(store), [tip])
    assert sum(row.chunks for row in found.codecs) == found.chunks == 2
    assert found.versions[1].new_bytes < 1000


def test_a_revision_counts_what_came_before_it_alone(store: Store) -> None:
    first, second, _ = commit_chain(store)
    found = stats_up_to(store, objects_of(store), second)
    assert [version.id for version in found.versions] == [first, second]
    assert found.logical_bytes == 2 * CHUNK_SIZE
    assert found.stored_bytes == sum(version.new_bytes for version in found.versions)


def test_a_lost_base_shows_as_a_chain_that_is_too_deep(store: Store) -> None:
    tip = commit_chain(store)[-1]
    objects = objects_of(store)
    sql(store, f"DELETE FROM entries WHERE codec = 0 AND kind = {Kind.CHUNK.value}")
    [row] = stats(store, objects, [tip]).codecs
    assert row.max_depth > MAX_BASE_DEPTH
