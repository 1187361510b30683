from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.history.objects import Objects
from shardfs.maintenance.verify import VerifyReport, verify
from shardfs.store.packs import list_packs
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    store = Store.create(tmp_path / "store")
    yield store
    store.close()


def objects_of(store: Store) -> Objects:
    """History of a store, nothing of it in memory."""
    return Objects(Reader(store, budget_bytes=0))


def check(store: Store) -> VerifyReport:
    """Verify a store."""
    return verify(store, objects_of(store), Reader(store))


def make_old(store: Store) -> None:
    """Let all packs look two days old."""
    for pack_id in list_packs(store.layout):
        path = store.layout.pack(pack_id)
        then = path.stat().st_mtime - 2 * 24 * 3600
        os.utime(path, (then, then))
