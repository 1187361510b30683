"""Remotes that fail in any way at any request: while one of them is sound, every read gives the right bytes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardfs.errors import (
    PackNotFoundError,
    RemoteDeniedError,
    RemoteProtocolError,
    RemoteTimeoutError,
    RemoteUnavailableError,
    ShardfsError,
)
from shardfs.formats.ids import Kind, PackId, chunk_id
from shardfs.formats.manifest import ChunkRef
from shardfs.store.cache import Cache
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from shardfs.transfer.standings import Standings
from tests import stores
from tests.stores import FolderSource, noise

SIZE = 3000
DATA = [noise(i, SIZE) for i in range(30)]
NAMES = ("near", "far", "other")
FAULTS: dict[str, type[ShardfsError]] = {
    "away": RemoteUnavailableError,
    "silent": RemoteTimeoutError,
    "denied": RemoteDeniedError,
    "nonsense": RemoteProtocolError,
    "gone": PackNotFoundError,
}
BEHAVIOUR = st.lists(st.sampled_from(["fine", "wrong", "short", *FAULTS]), min_size=1, max_size=12)


class Broken(FolderSource):
    """Behaves as planned, request by request, over and over."""

    def __init__(self, store: Store, plan: list[str]) -> None:
        super().__init__(store)
        self._plan = plan
        self._turn = 0
        self._lock = threading.Lock()

    def read_pack(self, pack_id: PackId, offset: int, length: int) -> bytes:
        with self._lock:
            what = self._plan[self._turn % len(self._plan)]
            self._turn += 1
        if what in FAULTS:
            raise FAULTS[what](what)
        data = super().read_pack(pack_id, offset, length)
        if what == "wrong":
            return bytes(len(data))
        return data[:-1] if what == "short" else data


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Store]]:
    """Two remotes with the same packs, and one that has packed anew."""
    folder = tmp_path_factory.mktemp("places")
    found = {}
    for name, together in (("near", 5), ("far", 5), ("other", 30)):
        found[name] = store = Store.create(folder / name)
        for start in range(0, len(DATA), together):
            with store.batch() as batch:
                for data in DATA[start : start + together]:
                    batch.put(Kind.CHUNK, data)
    yield found
    for store in found.values():
        store.close()


@pytest.fixture(scope="module")
def lazy(tmp_path_factory: pytest.TempPathFactory, places: dict[str, Store]) -> Iterator[Store]:
    store = Store.create(tmp_path_factory.mktemp("lazy") / "store")
    for name, other in places.items():
        stores.know_remote_packs(store, other, name)
    yield store
    store.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sound=st.sampled_from(NAMES),
    order=st.permutations(NAMES),
    plans=st.fixed_dictionaries(dict.fromkeys(NAMES, BEHAVIOUR)),
    ahead=st.booleans(),
)
def test_one_sound_remote_is_enough(
    lazy: Store,
    places: dict[str, Store],
    tmp_path_factory: pytest.TempPathFactory,
    sound: str,
    order: list[str],
    plans: dict[str, list[str]],
    ahead: bool,
) -> None:
    sources = {name: Broken(places[name], ["fine"] if name == sound else plans[name]) for name in NAMES}
    cache = Cache(tmp_path_factory.mktemp("cache"), limit_bytes=16 << 20, free_floor_bytes=0) if ahead else None
    reader = Reader(
        lazy, cache=cache, remote=sources.__getitem__, deadline_s=20, budget_bytes=1 << 20, standings=Standings(order)
    )
    if ahead:
        reader.bring([ChunkRef(chunk_id(data), SIZE) for data in DATA])

    def read(data: bytes) -> bytes:
        return reader.chunk(chunk_id(data), SIZE)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, DATA)) == DATA
    # A remote that fails is not asked for everything, over and over.
    failing = [name for name in NAMES if name != sound and "fine" not in plans[name] and "gone" not in plans[name]]
    for name in failing:
        assert len(sources[name].requests) <= len(DATA) * 2
    reader.close()
    if cache is not None:
        cache.close()
