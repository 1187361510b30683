"""Pushes over links that die, and kill -9 in the middle: what came once is not sent again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import RemoteError
from shardfs.remotes.http import HttpRemote
from shardfs.remotes.retry import RetryingRemote
from shardfs.store import packs
from shardfs.store.store import Store
from shardfs.transfer.push import RefUpdate, push
from tests.faults.relay import Relay, relaying
from tests.serving import serving
from tests.stores import CHUNK_SIZE, MAIN, commit, flip
from tests.unit.transfer.conftest import Side

pytestmark = pytest.mark.network

ROOT = Path(__file__).parents[2]
PACK = 8 << 20  # bytes of a pack here
DIES_AFTER = 2_000_000
HEADS = 512 << 10  # bytes of HTTP heads, and of what was on the wire when it broke

_PUSH = """
import sys
from pathlib import Path
from shardfs.remotes.http import HttpRemote
from shardfs.store.store import Store
from shardfs.transfer.push import RefUpdate, push
from tests.unit.transfer.conftest import Side
side = Side(Store(Path(sys.argv[1])))
update = RefUpdate(sys.argv[3], side.store.refs.get(sys.argv[3]))
push(side.store, side.reader, side.objects, HttpRemote(sys.argv[2]), [update])
"""


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    """A store with a commit of three packs."""
    monkeypatch.setattr("shardfs.store.packs.TARGET_SIZE", PACK)
    store = Store.create(tmp_path / "local")
    commit(store, {"a": os.urandom(5 * PACK // 2)})
    assert len(store.index.packs()) == 3
    yield Side(store)
    store.close()


def push_main(side: Side, url: str) -> None:
    remote = RetryingRemote(HttpRemote(f"{url}/demo"))
    try:
        push(side.store, side.reader, side.objects, remote, [RefUpdate(MAIN, side.store.refs.get(MAIN))])
    finally:
        remote.close()


def size(side: Side) -> int:
    return sum(side.store.index.packs().values())


def assert_pushed(side: Side, folder: Path) -> None:
    with_server = Store(folder)
    assert with_server.refs.get(MAIN) == side.store.refs.get(MAIN)
    assert with_server.index.packs() == side.store.index.packs() == packs.list_packs(with_server.layout)
    assert all(packs.hash_file(with_server.layout.pack(p)) == p for p in with_server.index.packs())
    assert list(with_server.layout.tmp.iterdir()) == []
    with_server.close()


def test_a_link_that_dies_all_the_time_carries_a_push(local: Side, tmp_path: Path) -> None:
    Store.create(tmp_path / "root/demo").close()
    with serving(tmp_path / "root") as server, relaying(server.url) as relay:
        relay.dies_after = DIES_AFTER
        push_main(local, relay.url)
        assert relay.connections > size(local) / DIES_AFTER
        assert relay.sent < size(local) + relay.connections * HEADS
    assert_pushed(local, tmp_path / "root/demo")


def killed_client(local: Side, relay: Relay) -> None:
    """Push in a process that is killed once the link carries nothing any more."""
    argv = [sys.executable, "-c", _PUSH, str(local.store.layout.root), f"{relay.url}/demo", MAIN]
    with subprocess.Popen(argv, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}) as client:
        assert relay.stopped.wait(60)
        client.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_client_that_was_killed_goes_on(local: Side, tmp_path: Path, share: float) -> None:
    with serving(tmp_path / "root") as server:
        with relaying(server.url) as relay:
            relay.stops_after = int(size(local) * share)
            killed_client(local, relay)
        with relaying(server.url) as again:
            push_main(local, again.url)
        assert relay.sent + again.sent < size(local) + PACK
    assert_pushed(local, tmp_path / "root/demo")


@pytest.mark.parametrize("share", [0.3, 0.8])
def test_a_server_that_was_killed_goes_on(local: Side, tmp_path: Path, share: float) -> None:
    Store.create(tmp_path / "root/demo").close()
    with serving(tmp_path / "root") as server, relaying(server.url) as relay:
        relay.stops_after, relay.pace_s = int(size(local) * share), 0.0005

        def kill() -> None:
            relay.stopped.wait(60)
            server.kill()
            relay.close()

        killer = threading.Thread(target=kill)
        killer.start()
        remote = HttpRemote(f"{relay.url}/demo")
        update = RefUpdate(MAIN, local.store.refs.get(MAIN))
        with pytest.raises(RemoteError):
            push(local.store, local.reader, local.objects, remote, [update])
        remote.close()
        killer.join()
    with serving(tmp_path / "root") as server, relaying(server.url) as again:
        push_main(local, again.url)
        assert relay.sent + again.sent < size(local) + PACK
    assert_pushed(local, tmp_path / "root/demo")


def part_of(folder: Path) -> Path:
    """What the server keeps of some pack, once it has noticed that the client is gone."""
    for _ in range(1000):
        found = [part for part in folder.glob("part-*") if part.stat().st_size > 1000]
        if found:
            return found[0]
        threading.Event().wait(0.01)
    raise AssertionError("nothing was kept")


def test_what_came_and_is_damaged_since_is_sent_again(local: Side, tmp_path: Path) -> None:
    with serving(tmp_path / "root") as server:
        with relaying(server.url) as relay:
            relay.stops_after = size(local) // 2
            killed_client(local, relay)
        flip(part_of(tmp_path / "root/demo/tmp"), 100)
        push_main(local, server.url)
    assert_pushed(local, tmp_path / "root/demo")


def test_two_clients_that_send_the_same_packs_at_once(local: Side, tmp_path: Path) -> None:
    failures: list[BaseException] = []
    with serving(tmp_path / "root") as server:

        def run() -> None:
            try:
                push_main(local, server.url)
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                failures.append(error)

        clients = [threading.Thread(target=run) for _ in range(3)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
    assert failures == []
    assert_pushed(local, tmp_path / "root/demo")


def test_a_pack_that_is_damaged_here_stops_the_push_before_its_ref(local: Side, tmp_path: Path) -> None:
    pack = list(local.store.index.packs())[1]
    flip(local.store.layout.pack(pack), 5 * CHUNK_SIZE)
    with serving(tmp_path / "root") as server:
        with pytest.raises(Exception, match=r"chunk .* has no good copy"):
            push_main(local, server.url)
        remote = HttpRemote(f"{server.url}/demo")
        assert MAIN not in remote.refs().refs
        remote.close()
    assert [p for p in local.store.layout.tmp.iterdir() if p.name.startswith("push")] == []
