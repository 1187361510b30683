"""The HTTP interface, spoken by hand to a real server process."""

from __future__ import annotations

import json
import os
import resource
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.formats import pack as pack_format
from shardfs.formats.ids import CommitId, Kind, chunk_id, content_id
from shardfs.formats.ref import packs_from_bytes, refs_from_bytes
from shardfs.store.store import Store
from tests.serving import serving
from tests.stores import MAIN, make_store
from tests.unit.server.byhand import Answer, Hosted, ask

pytestmark = pytest.mark.network


def pack_path(name: str) -> str:
    return f"/demo/packs/{name[:2]}/{name}.pack"


def test_health(hosted: Hosted) -> None:
    answer = ask(hosted.url, "GET", "/healthz")
    assert answer.status == 200
    assert json.loads(answer.body)["status"] == "ok"


def test_listings(hosted: Hosted) -> None:
    answer = ask(hosted.url, "GET", "/demo/info/refs")
    assert answer.headers["Cache-Control"] == "no-cache"
    assert refs_from_bytes(answer.body) == (MAIN, {MAIN: hosted.commits[-1]})
    listed = packs_from_bytes(ask(hosted.url, "GET", "/demo/info/packs").body)
    assert {p.id.hex(): p.size for p in listed} == {name: len(data) for name, data in hosted.packs.items()}


def test_failures_are_kept_by_no_cache(hosted: Hosted) -> None:
    [name, *_] = hosted.packs
    missing = ask(hosted.url, "GET", pack_path("0" * 64))
    past = ask(hosted.url, "GET", pack_path(name), Range=f"bytes={1 << 40}-")
    assert (missing.status, past.status) == (404, 416)
    assert missing.headers["Cache-Control"] == past.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("listing", ["refs", "packs"])
def test_a_file_that_cannot_be_opened_is_not_gone(tmp_path: Path, listing: str) -> None:
    make_store(tmp_path / "demo", 1)[0].close()
    with serving(tmp_path) as server, closing(HTTPConnection(urlsplit(server.url).netloc, timeout=20)) as client:
        statuses = []
        for limit in (1000, 3, 1000):  # descriptors that are open already stay so
            resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (limit, 4096))
            client.request("GET", f"/demo/info/{listing}")
            response = client.getresponse()
            response.read()
            statuses.append(response.status)
    assert statuses == [200, 503, 200]


def test_packs_and_ranges(hosted: Hosted) -> None:
    for name, data in hosted.packs.items():
        whole = ask(hosted.url, "GET", pack_path(name))
        assert (whole.status, whole.body) == (200, data)
        assert "immutable" in whole.headers["Cache-Control"]
        assert whole.headers["Content-Type"] == "application/octet-stream"
        part = ask(hosted.url, "GET", pack_path(name), Range="bytes=10-19")
        assert (part.status, part.body) == (206, data[10:20])
        assert part.headers["Content-Range"] == f"bytes 10-19/{len(data)}"
        tail = ask(hosted.url, "GET", pack_path(name), Range="bytes=-100")
        assert (tail.status, tail.body) == (206, data[-100:])
        tag = whole.headers["ETag"]
        assert ask(hosted.url, "GET", pack_path(name), Range="bytes=0-3", If_Range=tag).body == data[:4]
        assert ask(hosted.url, "GET", pack_path(name), If_None_Match=tag).status == 304
        assert ask(hosted.url, "GET", pack_path(name), Range=f"bytes={len(data)}-").status == 416
        head = ask(hosted.url, "HEAD", pack_path(name))
        assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(data)), b"")


def test_pack_table(hosted: Hosted) -> None:
    for name, data in hosted.packs.items():
        table = ask(hosted.url, "GET", f"/demo/packs/{name}/table").body
        assert data.endswith(table)
        trailer = pack_format.parse_trailer(table[-pack_format.TRAILER_SIZE :], len(data))
        assert len(pack_format.parse_table(table[: trailer.table_size], trailer)) >= 6


def test_has(hosted: Hosted) -> None:
    ids = b"".join([hosted.commits[0], bytes(32), hosted.commits[1]])
    assert ask(hosted.url, "POST", "/demo/has", ids).body == b"\1\0\1"
    assert ask(hosted.url, "POST", "/demo/has", b"").body == b""
    assert ask(hosted.url, "POST", "/demo/has", bytes(33)).status == 400
    assert ask(hosted.url, "POST", "/demo/has", bytes(65_537 * 32)).status == 413


def test_ref_by_name(hosted: Hosted) -> None:
    answer = ask(hosted.url, "GET", f"/demo/{MAIN}")
    assert answer.body == hosted.commits[-1].hex().encode() + b"\n"
    assert answer.headers["ETag"] == f'"{hosted.commits[-1].hex()}"'
    assert ask(hosted.url, "GET", "/demo/refs/heads/none").status == 404


# Packs


def test_put_pack_makes_a_repository(hosted: Hosted, other: tuple[Store, list[CommitId]]) -> None:
    store, commits = other
    for pack_id in store.index.packs():
        data = store.layout.pack(pack_id).read_bytes()
        for _ in range(2):
            answer = ask(hosted.url, "PUT", f"/group/model.v1/packs/{pack_id.hex()}", data)
            assert answer.status == 201, answer.body
    body = commits[-1].hex().encode()
    assert ask(hosted.url, "PUT", f"/group/model.v1/{MAIN}", body, If_None_Match="*").status == 200
    made = Store(hosted.root / "group" / "model.v1")
    assert made.refs.get(MAIN) == commits[-1]
    assert made.index.packs() == store.index.packs()
    made.close()


# Refs


def put_ref(url: str, name: str, commit: bytes, **headers: str) -> Answer:
    return ask(url, "PUT", f"/demo/{name}", commit.hex().encode() + b"\n", **headers)


def test_refs_move_by_compare_and_swap(hosted: Hosted) -> None:
    name = "refs/heads/moving"
    first, second, third = hosted.commits
    assert put_ref(hosted.url, name, first, If_None_Match="*").status == 200
    answer = put_ref(hosted.url, name, second, If_None_Match="*")
    assert answer.status == 412
    assert json.loads(answer.body)["current"] == first.hex()
    answer = put_ref(hosted.url, name, third, If_Match=f'"{second.hex()}"')
    assert answer.status == 412
    assert put_ref(hosted.url, name, second, If_Match=f'"{first.hex()}"').status == 200
    assert name.encode() in ask(hosted.url, "GET", "/demo/info/refs").body
    answer = ask(hosted.url, "DELETE", f"/demo/{name}", If_Match=f'"{first.hex()}"')
    assert answer.status == 412
    assert ask(hosted.url, "DELETE", f"/demo/{name}", If_Match=f'"{second.hex()}"').status == 200
    answer = put_ref(hosted.url, name, second, If_Match=f'"{second.hex()}"')
    assert json.loads(answer.body)["current"] is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 428),
        ({"If_Match": "*"}, 400),
        ({"If_Match": "0" * 64}, 400),
        ({"If_Match": f'W/"{"0" * 64}"'}, 400),
        ({"If_Match": f'"{"0" * 64}"', "If_None_Match": "*"}, 428),
        ({"If_None_Match": f'"{"0" * 64}"'}, 428),
    ],
)
def test_moves_without_a_clear_condition_are_refused(hosted: Hosted, headers: dict[str, str], status: int) -> None:
    answer = put_ref(hosted.url, "refs/heads/new", hosted.commits[0], **headers)
    assert answer.status == status
    assert answer.error
    assert ask(hosted.url, "DELETE", "/demo/refs/heads/new", None, **headers).status in (400, 428)


@pytest.mark.parametrize("body", [b"", b"zz", b"0" * 63, b"A" * 64, b"0" * 200, b"0" * 64 + b"\n\n"])
def test_bodies_that_are_no_commit_id_are_refused(hosted: Hosted, body: bytes) -> None:
    answer = ask(hosted.url, "PUT", "/demo/refs/heads/new", body, If_None_Match="*")
    assert answer.status in (400, 413)


def test_ref_to_what_is_not_here_or_no_commit_is_refused(hosted: Hosted) -> None:
    store = Store(hosted.root / "demo")
    tree = next(e.id for e in store.index.entries(next(iter(store.index.packs()))) if e.kind is Kind.TREE)
    store.close()
    for wrong in (b"\1" * 32, tree):
        answer = put_ref(hosted.url, "refs/heads/new", wrong, If_None_Match="*")
        assert answer.status == 409
        assert "not complete" in answer.error


def test_branch_below_a_branch_is_refused(hosted: Hosted) -> None:
    answer = put_ref(hosted.url, f"{MAIN}/below", hosted.commits[0], If_None_Match="*")
    assert answer.status == 409
    assert answer.error


# Chunks and manifests one by one


def test_block_round_trip(hosted: Hosted) -> None:
    data = os.urandom(10_000)
    path = f"/demo/blocks/{chunk_id(data).hex()}"
    assert ask(hosted.url, "HEAD", path).status == 404
    for _ in range(2):
        assert ask(hosted.url, "PUT", path, data).status == 201
    assert ask(hosted.url, "GET", path).body == data
    head = ask(hosted.url, "HEAD", path)
    assert (head.status, head.headers["Content-Length"], head.body) == (200, "10000", b"")
    assert ask(hosted.url, "PUT", path, data[:-1]).status == 400
    assert ask(hosted.url, "GET", path).body == data
    assert ask(hosted.url, "PUT", path, bytes((16 << 20) + 1)).status == 413


def test_manifest_round_trip(hosted: Hosted) -> None:
    data = os.urandom(100)
    body = f'{{"chunks":[["{chunk_id(data).hex()}",100]],"size":100,"type":"manifest","version":1}}'.encode()
    path = f"/demo/manifests/{content_id(Kind.MANIFEST, body).hex()}"
    assert ask(hosted.url, "PUT", path, body).status == 201
    assert ask(hosted.url, "GET", path).body == body
    not_canonical = body.replace(b",", b", ")
    path = f"/demo/manifests/{content_id(Kind.MANIFEST, not_canonical).hex()}"
    assert ask(hosted.url, "PUT", path, not_canonical).status == 400
    as_block = f"/demo/blocks/{content_id(Kind.MANIFEST, body).hex()}"
    assert ask(hosted.url, "GET", as_block).status == 404


def test_damaged_chunk_on_the_server_is_never_sent(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "demo", 1)
    (pack_id,) = store.index.packs()
    chunks = [e for e in store.index.entries(pack_id) if e.kind is Kind.CHUNK]
    path = store.layout.pack(pack_id)
    store.close()
    data = bytearray(path.read_bytes())
    for chunk in chunks:
        data[chunk.offset + chunk.stored_size // 2] ^= 1
    path.write_bytes(data)
    with serving(tmp_path) as server:
        for chunk in chunks:
            answer = ask(server.url, "GET", f"/demo/blocks/{chunk.id.hex()}")
            assert answer.status == 500
            assert "damaged" in answer.error


# Modes


def test_damaged_table_on_the_server_is_not_the_clients_mistake(tmp_path: Path) -> None:
    store, _ = make_store(tmp_path / "demo", 1)
    [pack_id] = store.index.packs()
    store.layout.pack(pack_id).write_bytes(b"cut off")
    with serving(tmp_path) as server:
        answer = ask(server.url, "GET", f"/demo/packs/{pack_id.hex()}/table")
    assert answer.status == 500
    assert pack_id.hex() in answer.error
    store.close()


def test_read_only(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "demo", 2)
    pack_id = next(iter(store.index.packs()))
    data = store.layout.pack(pack_id).read_bytes()
    store.close()
    with serving(tmp_path, "read-only") as server:
        assert ask(server.url, "GET", "/demo/info/refs").status == 200
        assert ask(server.url, "POST", "/demo/has", commits[0]).body == b"\1"
        for answer in (
            ask(server.url, "PUT", f"/demo/packs/{pack_id.hex()}", data),
            ask(server.url, "PUT", f"/new/packs/{pack_id.hex()}", data),
            put_ref(server.url, "refs/heads/new", commits[0], If_None_Match="*"),
            ask(server.url, "DELETE", f"/demo/{MAIN}", If_Match=f'"{commits[-1].hex()}"'),
            ask(server.url, "PUT", f"/demo/blocks/{chunk_id(b'x').hex()}", b"x"),
        ):
            assert answer.status == 403
            assert "read-only" in answer.error
    assert not (tmp_path / "new").exists()


def test_no_create(tmp_path: Path) -> None:
    with serving(tmp_path, "no-create") as server:
        assert ask(server.url, "PUT", f"/new/blocks/{chunk_id(b'x').hex()}", b"x").status == 404
    assert {path.name for path in tmp_path.iterdir()} <= {".server"}  # where it records what was tried


@pytest.mark.parametrize(
    "name", ["demo/inside", "demo/packs", "info", "tmp/x", "a/refs", ".hidden", "-x", "a/../b", "x" * 101]
)
def test_repositories_are_not_made_in_bad_places(hosted: Hosted, name: str) -> None:
    before = sorted(hosted.root.rglob("*"))
    answer = ask(hosted.url, "PUT", f"/{name}/blocks/{chunk_id(b'x').hex()}", b"x")
    assert answer.status in (400, 403)
    assert answer.error
    assert sorted(hosted.root.rglob("*")) == before


def test_directory_with_content_does_not_become_a_repository(hosted: Hosted) -> None:
    (hosted.root / "photos").mkdir()
    (hosted.root / "photos" / "cat").write_text("x")
    assert ask(hosted.url, "PUT", f"/photos/blocks/{chunk_id(b'x').hex()}", b"x").status == 403


@pytest.mark.parametrize("header", [{"Origin": "http://evil.example"}, {"Sec_Fetch_Site": "cross-site"}])
def test_web_pages_change_nothing(hosted: Hosted, header: dict[str, str]) -> None:
    assert ask(hosted.url, "PUT", f"/demo/blocks/{chunk_id(b'y').hex()}", b"y", **header).status == 403
    assert ask(hosted.url, "GET", "/demo/info/refs", None, **header).status == 200
