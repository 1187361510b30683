"""What is counted as having crossed the link: what did, once."""

from __future__ import annotations

import http.client
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.remotes.base import Remote
from shardfs.remotes.directory import DirectoryRemote
from shardfs.remotes.flow import Flow, FlowingRemote
from shardfs.remotes.http import HttpRemote
from shardfs.store.store import Store
from tests.serving import serving
from tests.stores import commit, make_store, noise


def flowing(remote: Remote) -> tuple[FlowingRemote, Flow, Flow]:
    received, sent = Flow(), Flow()
    return FlowingRemote(remote, received, sent), received, sent


def test_packs_that_go_and_come(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "store")
    remote, received, sent = flowing(DirectoryRemote(tmp_path / "place"))
    packs = store.index.packs()
    for _ in range(2):  # the second time all of them are there
        for pack_id in packs:
            remote.put_pack(store.layout.pack(pack_id), pack_id)
        assert sent.bytes == sum(packs.values())
    assert (received.bytes, received.seconds) == (0, 0)
    remote.read_pack(next(iter(packs)), 4, 20)
    assert received.bytes == 20
    assert received.seconds > 0
    remote.close()
    store.close()


@pytest.mark.network
def test_an_upload_that_goes_on_counts_from_there(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store")
    commit(store, {"a": noise(1, 300_000)})
    [(pack_id, size)] = store.index.packs().items()
    path = store.layout.pack(pack_id)
    Store.create(tmp_path / "srv/demo").close()
    with serving(tmp_path / "srv") as server:
        half = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
        half.putrequest("PUT", f"/demo/packs/{pack_id.hex()}")
        half.putheader("Content-Length", str(size))
        half.endheaders()
        half.send(path.read_bytes()[: size // 2])
        for _ in range(1000):
            if list((tmp_path / "srv/demo/tmp").glob("part-*")):
                break
            time.sleep(0.01)
        half.close()
        remote, _, sent = flowing(HttpRemote(f"{server.url}/demo"))
        remote.put_pack(path, pack_id)
        assert sent.bytes == size - size // 2
        remote.close()
    store.close()


def test_calls_at_the_same_time_take_their_time_once() -> None:
    flow = Flow()
    with flow.call():
        with flow.call():
            pass
        assert flow.seconds == 0
    assert flow.seconds > 0
