"""Quotas: reserved before a body is read, by what the index says."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.errors import LockedError, OutOfSpaceError
from shardfs.formats.ids import chunk_id
from shardfs.server.folder import ServerFolder
from shardfs.server.quota import Quotas
from shardfs.store.store import Store
from tests.serving import serving
from tests.stores import make_store
from tests.unit.server.byhand import ask, promise


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store, _ = make_store(tmp_path / "demo", 1)
    yield store
    store.close()


def used(store: Store) -> int:
    return sum(store.index.packs().values())


def test_room_is_kept_while_something_is_sent(store: Store) -> None:
    limit = used(store) + 100
    quotas = Quotas(lambda _: limit)
    with quotas.reserve("demo", store, b"a" * 32, 60):
        with pytest.raises(OutOfSpaceError, match=f"demo has a quota of {limit} bytes and uses {limit - 40}; 41 more"):
            quotas.reserve("demo", store, b"b" * 32, 41)
        with quotas.reserve("demo", store, b"b" * 32, 40):
            pass
    with quotas.reserve("demo", store, b"b" * 32, 100):
        pass


def test_what_is_here_needs_no_room_but_for_what_it_has_more(store: Store) -> None:
    ((pack_id, size),) = store.index.packs().items()
    quotas = Quotas(lambda _: used(store) + 10)
    with quotas.reserve("demo", store, pack_id, size), quotas.reserve("demo", store, b"b" * 32, 10):
        pass
    with pytest.raises(OutOfSpaceError):
        quotas.reserve("demo", store, pack_id, size + 11)


def test_what_is_on_its_way_twice_takes_room_twice(store: Store) -> None:
    (pack_id,) = store.index.packs()
    quotas = Quotas(lambda _: used(store) + 10)
    for id_, size in ((b"a" * 32, 10), (pack_id, store.index.packs()[pack_id])):
        with quotas.reserve("demo", store, id_, size), pytest.raises(LockedError, match="come over another connection"):
            quotas.reserve("demo", store, id_, size)


def test_unfinished_uploads_count(store: Store) -> None:
    limit = used(store) + 100
    quotas = Quotas(lambda _: limit)
    (store.layout.tmp / f"part-{b'a'.hex() * 32}").write_bytes(bytes(70))
    (store.layout.tmp / "part-of-something").write_bytes(bytes(70))
    with pytest.raises(OutOfSpaceError, match="31 more do not fit"):
        quotas.reserve("demo", store, b"b" * 32, 31)
    with quotas.reserve("demo", store, b"a" * 32, 100):  # the rest of it comes
        pass
    with quotas.reserve("demo", store, b"a" * 32, 1), pytest.raises(OutOfSpaceError, match="31 more do not fit"):
        quotas.reserve("demo", store, b"b" * 32, 31)  # what came is not gone because less is said to come


def test_unfinished_uploads_of_what_is_here_count(store: Store) -> None:
    (pack_id,) = store.index.packs()
    quotas = Quotas(lambda _: used(store) + 100)
    (store.layout.tmp / f"part-{pack_id.hex()}").write_bytes(bytes(70))
    with pytest.raises(OutOfSpaceError, match="31 more do not fit"):
        quotas.reserve("demo", store, b"b" * 32, 31)


@pytest.mark.network
def test_what_nobody_went_on_with_for_a_day_takes_no_room(tmp_path: Path) -> None:
    source, _ = make_store(tmp_path / "source", 1)
    ((pack_id, size),) = source.index.packs().items()
    data = source.layout.pack(pack_id).read_bytes()
    source.close()
    demo = Store.create(tmp_path / "root/demo")
    left = demo.layout.tmp / f"part-{b'a'.hex() * 32}"
    demo.close()
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(bytes(size))
    os.utime(left, (time.time() - 25 * 3600,) * 2)
    folder = ServerFolder(tmp_path / "root")
    folder.make()
    folder.config.write_text(f"[default]\nquota = {size}\n")
    with serving(tmp_path / "root") as server:
        assert ask(server.url, "PUT", f"/demo/packs/{pack_id.hex()}", data).status == 201


def test_repositories_have_room_each(store: Store, tmp_path: Path) -> None:
    other, _ = make_store(tmp_path / "other", 0)
    limits = {"demo": 0, "other": 50, "free": None}
    quotas = Quotas(lambda name: limits[name])
    with pytest.raises(OutOfSpaceError):
        quotas.reserve("demo", store, b"a" * 32, 1)
    with quotas.reserve("other", other, b"a" * 32, 50), quotas.reserve("free", store, b"a" * 32, 1 << 60):
        pass
    other.close()


@pytest.mark.network
def test_what_does_not_fit_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    source, _ = make_store(tmp_path / "source", 2)
    packs = {pack_id: source.layout.pack(pack_id).read_bytes() for pack_id in source.index.packs()}
    source.close()
    (first, data), (second, more) = packs.items()
    root = tmp_path / "root"
    root.mkdir()
    folder = ServerFolder(root)
    folder.make()
    folder.config.write_text(f'[repository."team/*"]\nquota = {len(data) + len(more) - 1}\n')
    for _ in range(2):  # a restart changes nothing
        with serving(root) as server:
            assert ask(server.url, "PUT", f"/team/a/packs/{first.hex()}", data).status == 201
            for path in (f"packs/{second.hex()}", f"blocks/{'0' * 64}", f"manifests/{'0' * 64}"):
                refused = promise(server.url, f"/team/a/{path}", len(more))
                assert refused.status == 507
                assert "team/a" in refused.error
                assert str(len(data) + len(more) - 1) in refused.error
    with serving(root) as server:
        assert ask(server.url, "PUT", f"/elsewhere/packs/{second.hex()}", more).status == 201
        for path in (f"packs/{second.hex()}", f"blocks/{'0' * 64}"):
            parts = urlsplit(server.url)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
            connection.request("PUT", f"/team/a/{path}", iter([more]), encode_chunked=True)
            assert connection.getresponse().status == 411
            connection.close()
    with serving(root, "read-only") as server:
        for path in (f"packs/{second.hex()}", f"blocks/{'0' * 64}"):
            assert promise(server.url, f"/team/a/{path}", len(more)).status == 403


@pytest.mark.network
def test_two_at_once_do_not_share_the_last_room(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path)
    folder.make()
    folder.config.write_text("[default]\nquota = 150_000\n")
    bodies = [os.urandom(100_000) for _ in range(2)]
    with serving(tmp_path) as server, ThreadPoolExecutor(2) as pool:
        paths = [f"/x/blocks/{chunk_id(body).hex()}" for body in bodies]
        answers = list(pool.map(lambda path, body: ask(server.url, "PUT", path, body), paths, bodies))
    assert sorted(answer.status for answer in answers) == [201, 507]
