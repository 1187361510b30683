"""A cache of another server, as processes: each byte is fetched once, and stays useful when the other one is away."""

from __future__ import annotations

import http.client
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shardfs.config import Settings
from shardfs.errors import ChunkCorruptedError, RemoteDeniedError, RemoteUnavailableError, RepositoryNotFoundError
from shardfs.formats.ids import Kind, chunk_id
from shardfs.formats.ref import PackSize
from shardfs.remotes.base import Remote, read_pack_tail
from shardfs.remotes.directory import DirectoryRemote
from shardfs.remotes.registry import open_remote
from shardfs.server import peer_cache
from shardfs.server.peer_cache import PeerCache
from shardfs.store.cache import Cache
from shardfs.store.store import Store
from shardfs.transfer.fetch import learn_packs
from shardfs.transfer.reader import Reader
from tests import stores
from tests.peers import command, sent_bytes
from tests.serving import Server
from tests.stores import noise
from tests.unit.server.byhand import ask

pytestmark = pytest.mark.network

SIZE = 150_000
FIRST = 4 << 20  # bytes of a body that a cache sends at a time
DATA = [noise(i, SIZE) for i in range(40)]
IDS = [chunk_id(data) for data in DATA]


@dataclass
class Network:
    """A server, its log of requests, and a folder for a cache of it."""

    root: Path
    upstream: Server
    log: Path
    folder: Path
    pack_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.pack_bytes = sum(pack.stat().st_size for pack in self.packs())

    def packs(self) -> list[Path]:
        return sorted(self.root.glob("demo/packs/*/*.pack"))

    @contextmanager
    def cache(self, *options: str) -> Iterator[Server]:
        given = options or ("--anonymous", "read")
        with command("--cache", self.upstream.url, "--cache-dir", self.folder, "--cache-size", "64M", *given) as server:
            yield server


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Network]:
    monkeypatch.setenv("SHARDFS_CACHE_MIN_FREE", "0")
    root, log = tmp_path / "root", tmp_path / "access.log"
    store = Store.create(root / "demo")
    for start in range(0, len(DATA), 20):
        with store.batch() as batch:
            for data in DATA[start : start + 20]:
                batch.put(Kind.CHUNK, data)
    stores.add_commit(store, None, 1)
    store.close()
    with command("--root", root, "--anonymous", "read", "--access-log", log) as upstream:
        yield Network(root, upstream, log, tmp_path / "served")


@contextmanager
def client(server: Server, folder: Path) -> Iterator[Reader]:
    """Somebody who reads lazily through a server, with nothing on the own disk."""
    remote = open_remote(f"{server.url}/demo", settings=Settings("A <a@b>", folder / "cache", deadline_s=10))
    store = Store.create(folder / "store")
    learn_packs(store, remote, 10)
    reader = Reader(store, remote=lambda _: remote, deadline_s=10)
    yield reader
    reader.close()
    remote.close()
    store.close()


@contextmanager
def remote_at(server: Server, name: str = "demo", deadline_s: float = 10) -> Iterator[Remote]:
    settings = Settings("A <a@b>", Path("/nonexistent"), deadline_s=deadline_s)
    with closing(open_remote(f"{server.url}/{name}", settings=settings)) as remote:
        yield remote


def read_all(reader: Reader) -> None:
    assert [reader.chunk(id_, SIZE) for id_ in IDS] == DATA


def test_four_clients_take_each_byte_once_from_the_other_server(network: Network, tmp_path: Path) -> None:
    together = threading.Barrier(4)

    def read(number: int) -> None:
        with client(cache, tmp_path / str(number)) as reader:
            together.wait()
            read_all(reader)

    with network.cache() as cache, ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))
        with urllib.request.urlopen(f"{cache.url}/metrics") as answer:
            told = dict(
                line.split() for line in answer.read().decode().splitlines() if line.startswith("shardfs_server_cache")
            )
    assert float(told["shardfs_server_cache_fetched_bytes_total"]) == sent_bytes(network.log)
    assert float(told["shardfs_server_cache_hit_bytes_total"]) > len(DATA) * SIZE
    assert network.pack_bytes >= sent_bytes(network.log) > len(DATA) * SIZE


def test_processes_share_one_folder(network: Network, tmp_path: Path) -> None:
    with network.cache() as one, network.cache() as two:
        with client(one, tmp_path / "one") as reader:
            read_all(reader)
        before = sent_bytes(network.log)
        with client(two, tmp_path / "two") as reader:
            read_all(reader)
    assert sent_bytes(network.log) == before


def test_all_of_it_is_there_while_the_other_server_is_away(network: Network, tmp_path: Path) -> None:
    with network.cache() as cache, client(cache, tmp_path / "one") as reader, remote_at(cache) as remote:
        read_all(reader)
        refs = remote.refs()
        for pack in remote.list_packs():
            remote.read_pack(pack.id, 0, pack.size)
        network.upstream.kill()
        cache.kill()
    with network.cache() as cache, client(cache, tmp_path / "two") as reader, remote_at(cache) as remote:
        assert remote.refs() == refs
        with urllib.request.urlopen(f"{cache.url}/demo/info/refs") as answer:
            assert int(answer.headers["Age"]) >= 0
        read_all(reader)
        for path in network.packs():  # somebody's memory or link spoils bytes that are right here
            doubted = ask(cache.url, "GET", f"/demo/packs/{path.parent.name}/{path.name}", Cache_Control="no-cache")
            assert doubted.body == path.read_bytes()


def test_what_is_here_is_read_at_once_while_the_other_server_is_silent(network: Network, tmp_path: Path) -> None:
    with network.cache() as cache, client(cache, tmp_path / "one") as reader:
        read_all(reader)
        network.upstream.process.send_signal(signal.SIGSTOP)
        try:
            reader._memory.clear()
            time.sleep(1.1)  # what is known of the other server is not fresh any more
            started = time.monotonic()
            read_all(reader)
            took = time.monotonic() - started
        finally:
            network.upstream.process.send_signal(signal.SIGCONT)
    assert took < 4  # one question to the other server would take 5 s


def test_what_is_not_here_fails_in_time_with_a_reason(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_DEADLINE", "0.5")
    with network.cache() as cache, remote_at(cache, deadline_s=2) as remote:
        [pack, *_] = remote.list_packs()
        network.upstream.kill()
        with pytest.raises(RemoteUnavailableError, match="503"):
            remote.read_pack(pack.id, 0, 100)
        with remote_at(cache, "never", 2) as other, pytest.raises(RemoteUnavailableError, match="503"):
            other.refs()


@contextmanager
def peer_of(url: str, folder: Path) -> Iterator[PeerCache]:
    cache = Cache(folder / "blocks", limit_bytes=16 << 20, free_floor_bytes=0)
    with (
        closing(cache),
        closing(PeerCache(url, cache, folder / "listings", Settings("A <a@b>", folder, deadline_s=1.0))) as peer,
    ):
        yield peer


def test_nobody_waits_for_a_server_that_is_known_to_be_away(network: Network) -> None:
    with peer_of(network.upstream.url, network.folder) as peer:
        pack = next(iter(peer.listing("demo").packs.values()))
        network.upstream.kill()
        until, said = time.monotonic() + 20, ""
        while "left alone" not in said:  # the first one waits until it is known
            assert time.monotonic() < until
            with pytest.raises(RemoteUnavailableError) as caught:
                peer.read("demo", pack, 0, 100)
            said = str(caught.value)
        with pytest.raises(RemoteUnavailableError):
            peer.has("demo", IDS)


def test_a_repository_may_be_in_use_when_others_are_asked_for(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer_cache, "_MAX_OPEN", 1)
    closed = []
    monkeypatch.setattr(DirectoryRemote, "close", lambda remote: closed.append(remote.url))
    with peer_of(str(network.root), tmp_path) as peer:
        used = peer.remote("demo")
        assert peer.remote("other") is not used
        assert not any(url.endswith("demo") for url in closed)
        assert used.has([IDS[0]]) == [True]
    assert any(url.endswith("other") for url in closed)


def test_changes_are_refused_and_the_other_server_is_named(network: Network, tmp_path: Path) -> None:
    with network.cache() as cache, remote_at(cache) as remote:
        pack = network.packs()[0]
        with pytest.raises(RemoteDeniedError, match=f"cache of {network.upstream.url}") as refused:
            remote.update_ref("refs/heads/new", None, remote.refs().refs["refs/heads/main"])
        assert "login" not in str(refused.value)
        (tmp_path / "new").write_bytes(pack.read_bytes() + b"more")
        with pytest.raises(RemoteDeniedError, match="push there"):
            remote.put_pack(tmp_path / "new", PackSize(bytes(32), 1).id)  # type: ignore[arg-type]


def test_it_answers_what_the_other_server_answers(network: Network) -> None:
    with network.cache() as cache, remote_at(cache) as here, remote_at(network.upstream) as there:
        assert here.refs() == there.refs()
        assert sorted(p.id for p in here.list_packs()) == sorted(p.id for p in there.list_packs())
        for pack in there.list_packs():
            assert read_pack_tail(here, pack, 5000) == read_pack_tail(there, pack, 5000)
            whole = network.root / "demo" / "packs" / pack.id.hex()[:2] / f"{pack.id.hex()}.pack"
            with urllib.request.urlopen(f"{cache.url}/demo/packs/{whole.parent.name}/{whole.name}") as answer:
                assert answer.read() == whole.read_bytes()
            for path in (f"packs/{pack.id.hex()}/table", "refs/heads/main"):
                with urllib.request.urlopen(f"{cache.url}/demo/{path}") as mine:
                    data = mine.read()
                with urllib.request.urlopen(f"{network.upstream.url}/demo/{path}") as theirs:
                    assert data == theirs.read()
        assert here.has([IDS[0], bytes(32)]) == [True, False]
        with remote_at(cache, "other") as other, pytest.raises(RepositoryNotFoundError):
            other.refs()


def test_bytes_that_came_wrong_are_not_kept_for_ever(network: Network, tmp_path: Path) -> None:
    right = {pack: pack.read_bytes() for pack in network.packs()}
    for pack, data in right.items():
        pack.chmod(0o644)
        if len(data) > SIZE:
            pack.write_bytes(data[:1000] + bytes(100) + data[1100:])
    with network.cache() as cache:
        with client(cache, tmp_path / "one") as reader, pytest.raises(ChunkCorruptedError):
            read_all(reader)
        for pack, data in right.items():
            pack.write_bytes(data)
        with client(cache, tmp_path / "two") as reader:
            until = time.monotonic() + 20
            while True:  # it is asked again once a second, however many say that it is wrong
                try:
                    read_all(reader)
                    break
                except ChunkCorruptedError:
                    assert time.monotonic() < until


def test_who_reads_needs_a_token_of_the_cache(network: Network) -> None:
    with (
        network.cache("--anonymous", "none") as cache,
        remote_at(cache) as remote,
        pytest.raises(RemoteDeniedError, match="login"),
    ):
        remote.refs()


def test_a_cache_that_is_not_let_in_says_so_at_once(network: Network, tmp_path: Path) -> None:
    with command("--root", network.root) as closed:
        folder = tmp_path / "elsewhere"
        with (
            command("--cache", closed.url, "--cache-dir", folder, "--anonymous", "read") as cache,
            remote_at(cache) as remote,
            pytest.raises(RemoteDeniedError, match=f"{closed.url}/? does not let this cache in"),
        ):
            remote.refs()


def test_proxies_do_not_keep_what_needs_a_token(network: Network) -> None:
    network.folder.mkdir()
    words = [sys.executable, "-m", "shardfs_cli", "token", "create", "--root", str(network.folder), "--name", "reader"]
    made = subprocess.run([*words, "--repository", "all"], check=True, capture_output=True, text=True)
    pack = network.packs()[0]
    with network.cache("--anonymous", "none") as cache:
        request = urllib.request.Request(f"{cache.url}/demo/packs/{pack.parent.name}/{pack.name}")
        request.add_header("Authorization", f"Bearer {made.stdout.strip()}")
        with urllib.request.urlopen(request) as answer:
            assert answer.read() == pack.read_bytes()
            assert answer.headers["Cache-Control"].startswith("private")


def test_what_breaks_in_the_middle_of_an_answer_ends_it(network: Network, tmp_path: Path) -> None:
    with closing(Store(network.root / "demo")) as store, store.batch() as batch:
        for number in range(40):
            batch.put(Kind.CHUNK, noise(100 + number, SIZE))
    pack = max(network.packs(), key=lambda path: path.stat().st_size)
    assert pack.stat().st_size > FIRST
    path = f"/demo/packs/{pack.stem[:2]}/{pack.stem}.pack"
    with network.cache() as cache:
        first = ask(cache.url, "GET", path, Range=f"bytes=0-{FIRST - 1}")
        assert first.headers["Server"] == "shardfs"
        network.upstream.kill()
        with pytest.raises(http.client.IncompleteRead) as caught:
            ask(cache.url, "GET", path)
    assert caught.value.partial == first.body == pack.read_bytes()[:FIRST]
