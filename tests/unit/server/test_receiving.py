"""Uploads in pieces, spoken by hand."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.errors import StoreError
from shardfs.formats.ids import PackId
from shardfs.server.receiving import _finish
from shardfs.store.store import Store
from tests.serving import Server, serving
from tests.stores import commit, noise
from tests.unit.server.byhand import ask

pytestmark = pytest.mark.network

DAY_S = 24 * 3600


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """Id and bytes of a pack."""
    store = Store.create(tmp_path_factory.mktemp("pack") / "store")
    commit(store, {"a": noise(1, 300_000)})
    [pack_id] = store.index.packs()
    data = store.layout.pack(pack_id).read_bytes()
    store.close()
    return pack_id.hex(), data


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server with an empty repository `demo`."""
    Store.create(tmp_path / "demo").close()
    with serving(tmp_path) as running:
        yield running


def offset(server: Server, pack_id: str) -> int | None:
    """How much of a pack the server says to have; None: all of it."""
    answer = ask(server.url, "HEAD", f"/demo/packs/{pack_id[:2]}/{pack_id}.pack")
    return None if answer.status == 200 else int(answer.headers.get("Upload-Offset", "0"))


def begin(server: Server, pack_id: str, data: bytes, sent: int, more: str = "") -> socket.socket:
    """A connection that has sent so many bytes of a pack."""
    parts = urlsplit(server.url)
    connection = socket.create_connection((parts.hostname or "", parts.port or 0), 20)
    length = f"Content-Length: {len(data)}\r\n" if data else ""
    head = f"PUT /demo/packs/{pack_id} HTTP/1.1\r\nHost: x\r\n{length}{more}\r\n"
    connection.sendall(head.encode() + data[:sent])
    return connection


def wait_for_part(folder: Path) -> Path:
    for _ in range(1000):
        if found := list(folder.glob("part-*")):
            return found[0]
        time.sleep(0.01)
    raise AssertionError("no upload began")


def put_rest(server: Server, pack_id: str, data: bytes, start: int, end: int | None = None) -> int:
    said = f"bytes {start}-{len(data) - 1}/{len(data)}" if start < len(data) else f"bytes */{len(data)}"
    return ask(server.url, "PUT", f"/demo/packs/{pack_id}", data[start:end], Content_Range=said).status


def test_what_came_before_the_connection_broke_is_kept(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    pack_id, data = pack
    assert offset(server, pack_id) == 0
    connection = begin(server, pack_id, data, 100_000)
    wait_for_part(tmp_path / "demo/tmp")
    connection.close()
    assert offset(server, pack_id) == 100_000
    assert put_rest(server, pack_id, data, 100_000) == 201
    assert offset(server, pack_id) is None
    assert list((tmp_path / "demo/tmp").iterdir()) == []


def test_a_connection_that_is_silent_gives_way(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    pack_id, data = pack
    connection = begin(server, pack_id, data, 100_000)
    wait_for_part(tmp_path / "demo/tmp")
    while not (here := offset(server, pack_id)):
        time.sleep(0.1)
    assert put_rest(server, pack_id, data, here) == 201
    assert b" 408 " in connection.recv(100)
    connection.close()


def test_a_client_does_not_disturb_another_one(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    pack_id, data = pack
    connection = begin(server, pack_id, data, 100_000)
    wait_for_part(tmp_path / "demo/tmp")
    assert ask(server.url, "PUT", f"/demo/packs/{pack_id}", data).status == 201
    connection.sendall(data[100_000:])
    assert b" 201 " in connection.recv(100)
    connection.close()


def test_all_of_it_may_be_there_already(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    pack_id, data = pack
    (tmp_path / f"demo/tmp/part-{pack_id}").write_bytes(data)
    assert offset(server, pack_id) == len(data)
    assert put_rest(server, pack_id, data, len(data)) == 201
    assert offset(server, pack_id) is None


def test_bytes_of_something_else_are_thrown_away(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    pack_id, data = pack
    (tmp_path / f"demo/tmp/part-{pack_id}").write_bytes(bytes(1000))
    assert put_rest(server, pack_id, data, 1000) == 400
    assert offset(server, pack_id) == 0
    assert put_rest(server, pack_id, data, 0) == 201


def test_what_was_left_behind_the_end_does_not_count(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    pack_id, data = pack
    (tmp_path / f"demo/tmp/part-{pack_id}").write_bytes(bytes(len(data) + 1000))
    assert ask(server.url, "PUT", f"/demo/packs/{pack_id}", data).status == 201


def test_a_gap_is_refused(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    pack_id, data = pack
    assert put_rest(server, pack_id, data, 1000) == 416
    assert put_rest(server, pack_id, data, len(data)) == 416
    (tmp_path / f"demo/tmp/part-{pack_id}").write_bytes(data[:1000])
    assert put_rest(server, pack_id, data, 2000) == 416
    assert offset(server, pack_id) == 1000


@pytest.mark.parametrize("said", ["bytes 0-99/200", "bytes 5-4/5", "lines 0-1/2", "bytes 0-1/*", f"bytes */{1 << 40}"])
def test_bad_ranges(server: Server, pack: tuple[str, bytes], said: str) -> None:
    answer = ask(server.url, "PUT", f"/demo/packs/{pack[0]}", pack[1][:100], Content_Range=said)
    assert answer.status in (400, 413)
    assert answer.error


def test_a_body_that_goes_on_behind_the_end_of_the_pack(
    server: Server, pack: tuple[str, bytes], tmp_path: Path
) -> None:
    """What it says is what a quota is asked for: no more of it may reach the disk, also when the rest never comes."""
    pack_id, data = pack
    connection = begin(server, pack_id, data, len(data) - 1, "Content-Range: bytes 0-0/1\r\n")
    assert b" 400 " in connection.recv(100)
    connection.close()
    connection = begin(server, pack_id, b"", 0, "Content-Range: bytes 0-9/10\r\nTransfer-Encoding: chunked\r\n")
    connection.sendall(b"%x\r\n%s\r\n" % (len(data), data))
    assert b" 413 " in connection.recv(100)
    connection.close()
    assert list((tmp_path / "demo/tmp").iterdir()) == []


def test_a_pack_stays_as_it_was_verified_whatever_another_process_gets(
    server: Server, pack: tuple[str, bytes], tmp_path: Path
) -> None:
    pack_id, data = pack
    with closing(Store(tmp_path / "demo")) as store, serving(tmp_path) as other, ThreadPoolExecutor(1) as pool:
        with store.lock.hold("test"):  # so that the first server cannot take it in yet
            whole = pool.submit(put_rest, server, pack_id, data, 0)
            while wait_for_part(store.layout.tmp).stat().st_size < len(data):
                time.sleep(0.01)
            time.sleep(0.3)  # so that it is verified
            assert put_rest(other, pack_id, bytes(len(data)), 0) == 503
        assert whole.result() == 201
        assert store.layout.pack(PackId(bytes.fromhex(pack_id))).read_bytes() == data


def test_a_body_that_ends_before_the_pack_does(server: Server, pack: tuple[str, bytes]) -> None:
    pack_id, data = pack
    assert put_rest(server, pack_id, data, 0, 1000) == 400


def test_what_nobody_goes_on_with_is_deleted(server: Server, pack: tuple[str, bytes], tmp_path: Path) -> None:
    left = tmp_path / f"demo/tmp/part-{'0' * 64}"
    left.write_bytes(b"x")
    young = tmp_path / f"demo/tmp/part-{'1' * 64}"
    young.write_bytes(b"x")
    os.utime(left, (time.time() - DAY_S - 60,) * 2)
    assert put_rest(server, *pack, 0) == 201
    assert not left.exists()
    assert young.exists()


def test_a_disk_that_does_not_keep_what_came_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", refuse)
    with (tmp_path / "part").open("wb") as file, pytest.raises(StoreError, match="cannot receive a pack"):
        _finish(file.fileno(), 0)
