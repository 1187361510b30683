from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.formats.ids import ChunkId, Kind, chunk_id
from shardfs.formats.tree import FileEntry
from shardfs.history.objects import Objects
from shardfs.store.cache import Cache
from shardfs.store.store import Store
from shardfs.transfer.facts import FileFacts, file_facts
from shardfs.transfer.reader import Reader
from tests.stores import CHUNK_SIZE, changed, know_remote_packs, local_entries, noise, put_delta, put_file

ONE, TWO = noise(1, CHUNK_SIZE), changed(noise(1, CHUNK_SIZE), 1)
THREE = changed(ONE, 2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    with_room = Cache.open(tmp_path / "cache", limit_bytes=64 << 20, free_floor_bytes=0)
    yield with_room
    with_room.close()


def facts(store: Store, entry: FileEntry, cache: Cache | None = None) -> FileFacts:
    return file_facts(entry, Objects(Reader(store)), store, cache)


def put_versions(store: Store) -> None:
    """ONE as it is, TWO as a difference to it, THREE as a difference to TWO."""
    with store.batch() as batch:
        put_delta(batch, TWO, ONE)
        put_delta(batch, THREE, TWO)


def entry_of(data: bytes) -> FileEntry:
    return FileEntry(b"model", len(data), chunk=ChunkId(chunk_id(data)))


def test_codecs_by_bytes_of_the_file_and_depth(store: Store) -> None:
    put_versions(store)
    with store.batch() as batch:
        entry = put_file(batch, b"model", THREE + TWO + ONE + THREE + b"a" * 1000)
    found = facts(store, entry)
    sizes = {e.id: e.stored_size for _, e in local_entries(store, [Kind.CHUNK])}
    assert found.chunks == 5
    assert found.stored == sum(sizes.values())
    assert found.cached == entry.size
    assert found.codecs == ("patch", "raw", "zstd")
    assert found.depth == 2


def test_bases_are_not_counted(store: Store) -> None:
    put_versions(store)
    found = facts(store, entry_of(THREE))
    assert (found.chunks, found.codecs, found.depth) == (1, ("patch",), 2)
    assert found.stored < 100


def test_a_difference_can_be_read_without_a_network_when_all_below_it_can(
    store: Store, cache: Cache, tmp_path: Path
) -> None:
    far = Store.create(tmp_path / "far")
    put_versions(far)
    know_remote_packs(store, far)
    entries = {e.id: e for _, e in local_entries(far, [Kind.CHUNK])}

    def fetch(data: bytes) -> None:
        location = far.find(chunk_id(data))[0]
        encoded = far.read(location)
        cache.put(location.entry.id, encoded.codec, len(data), encoded.bases, encoded.payload)

    assert facts(store, entry_of(THREE), cache) == FileFacts(1, entries[chunk_id(THREE)].stored_size, 0, ("patch",), 2)
    fetch(THREE)
    fetch(TWO)
    assert facts(store, entry_of(THREE), cache).cached == 0
    fetch(ONE)
    assert facts(store, entry_of(THREE), cache).cached == CHUNK_SIZE
    assert facts(store, entry_of(THREE), None).cached == 0
    far.close()


def test_what_the_cache_holds_decoded_needs_no_base(store: Store, cache: Cache, tmp_path: Path) -> None:
    far = Store.create(tmp_path / "far")
    put_versions(far)
    know_remote_packs(store, far)
    cache.put(chunk_id(TWO), 0, len(TWO), (), TWO)
    assert facts(store, entry_of(TWO), cache).cached == CHUNK_SIZE
    far.close()


def test_an_empty_file(store: Store) -> None:
    assert facts(store, FileEntry(b"empty", 0)) == FileFacts(0, 0, 0, (), 0)
