"""Damaged packs are made whole again: durable first, set aside then, and never the last copy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.codecs import registry
from shardfs.formats.ids import Kind, PackId, chunk_id
from shardfs.maintenance.mending import mend
from shardfs.maintenance.verify import verify
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests import stores
from tests.stores import FolderSource, flip, noise
from tests.unit.maintenance.conftest import objects_of

SIZE = 20_000
DATA = [noise(i, SIZE) for i in range(12)]
FILES = {f"file{i}.bin": data for i, data in enumerate(DATA)}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "store")
    stores.commit(store, FILES)
    yield store
    store.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """The same content in other packs."""
    store = Store.create(tmp_path / "other")
    for path, data in FILES.items():
        stores.commit(store, {path: data})
    stores.commit(store, FILES, branch=None, parents=())
    yield store
    store.close()


def damage(store: Store, number: int) -> PackId:
    piece = DATA[number][: stores.CHUNK_SIZE]
    location = store.find(chunk_id(piece))[0]
    flip(store.layout.pack(location.pack), location.entry.offset + 9)
    return location.pack


def reader_of(store: Store, other: Store | None = None) -> Reader:
    if other is None:
        return Reader(store)
    stores.know_remote_packs(store, other)
    return Reader(store, remote=lambda _: FolderSource(other))


def read(store: Store) -> list[bytes]:
    reader = Reader(store, budget_bytes=0)
    pieces = [data[i : i + stores.CHUNK_SIZE] for data in DATA for i in range(0, SIZE, stores.CHUNK_SIZE)]
    return [reader.chunk(chunk_id(piece), len(piece)) for piece in pieces]


def test_a_sound_store_is_left_alone(store: Store) -> None:
    before = store.index.packs()
    report = mend(store, Reader(store))
    assert (report.payloads, report.packs, report.lost, report.folder) == (0, [], [], None)
    assert store.index.packs() == before


def test_damage_is_healed_from_another_pack_of_a_remote(store: Store, other: Store) -> None:
    pack = damage(store, 3)
    report = mend(store, reader_of(store, other))
    assert (report.healed, report.lost, report.packs) == (1, [], [pack.hex()])
    assert report.folder is None  # the same payloads in the same order are the same pack
    store.index.remove_packs(store.index.packs("origin"), "origin")
    assert verify(store, objects_of(store), Reader(store)).ok
    assert len(read(store)) == len(DATA) * 5


def test_a_pack_that_is_replaced_by_another_is_set_aside(store: Store, other: Store) -> None:
    pack = damage(store, 3)
    with store.batch() as batch:  # what is elsewhere already is not stored again
        piece = DATA[0][: stores.CHUNK_SIZE]
        batch.put_encoded(Kind.CHUNK, chunk_id(piece), registry.encode(piece), len(piece))
    report = mend(store, reader_of(store, other))
    assert report.packs == [pack.hex()]
    assert report.folder is not None
    assert [path.name for path in report.folder.iterdir()] == [f"{pack.hex()}.pack"]
    assert pack not in store.index.packs()
    store.index.remove_packs(store.index.packs("origin"), "origin")
    assert verify(store, objects_of(store), Reader(store)).ok


def test_a_pack_whose_end_is_lost_is_healed(store: Store, other: Store) -> None:
    [pack] = store.index.packs()
    path = store.layout.pack(pack)
    path.write_bytes(path.read_bytes()[:-40_000])
    report = mend(store, reader_of(store, other))
    assert not report.lost
    assert report.packs == [pack.hex()]
    store.index.remove_packs(store.index.packs("origin"), "origin")
    assert verify(store, objects_of(store), Reader(store)).ok


def test_the_last_copy_stays_where_it_is(store: Store) -> None:
    pack = damage(store, 3)
    report = mend(store, reader_of(store))
    assert report.lost == [chunk_id(DATA[3][: stores.CHUNK_SIZE]).hex()]
    assert (report.kept, report.packs) == ([pack.hex()], [])
    assert store.layout.pack(pack).exists()
    again = mend(store, reader_of(store))
    assert (again.payloads, again.lost) == (0, report.lost)  # what was sound in it is in another pack already


def test_a_delta_whose_base_is_damaged_is_healed_too(tmp_path: Path) -> None:
    base, data = noise(1, 200_000), stores.changed(noise(1, 200_000), 1000)
    store, other = Store.create(tmp_path / "a"), Store.create(tmp_path / "b")
    for one in (store, other):
        with one.batch() as batch:
            stores.put_delta(batch, data, base)
    with other.batch() as batch:
        batch.put(Kind.CHUNK, b"more")
    location = store.find(chunk_id(base))[0]
    flip(store.layout.pack(location.pack), location.entry.offset + 9)
    report = mend(store, reader_of(store, other))
    assert not report.lost
    store.index.remove_packs(store.index.packs("origin"), "origin")
    assert Reader(store).chunk(chunk_id(data), len(data)) == data
    for one in (store, other):
        one.close()
