"""A server process that the tests of one module share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.formats.ids import CommitId
from shardfs.store.store import Store
from tests.serving import serving
from tests.stores import make_store
from tests.unit.server.byhand import Hosted


@pytest.fixture(scope="module")
def hosted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    root = tmp_path_factory.mktemp("root")
    store, commits = make_store(root / "demo")
    packs = {p.hex(): store.layout.pack(p).read_bytes() for p in store.index.packs()}
    store.close()
    with serving(root) as server:
        yield Hosted(server.url, root, commits, packs)


@pytest.fixture
def other(tmp_path: Path) -> Iterator[tuple[Store, list[CommitId]]]:
    store, commits = make_store(tmp_path / "other", 2)
    yield store, commits
    store.close()
