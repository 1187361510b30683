"""Who may do what, asked from outside: every endpoint by every method with every kind of token."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from shardfs.formats.ids import chunk_id
from shardfs.server.access import RULES, Access
from shardfs.server.folder import ServerFolder
from shardfs.server.handlers import Handlers
from shardfs.server.quota import Quotas
from shardfs.server.recording import ACTIONS
from shardfs.server.repositories import Repositories
from shardfs.server.routes import _ENDPOINTS, parse_path
from shardfs.server.tokens import Permission, TokenStore
from tests.serving import serving
from tests.stores import MAIN, make_store
from tests.unit.server.byhand import Answer, ask
from tests.unit.server.guarded import Guarded, audit, basic, make_tokens

pytestmark = pytest.mark.network

ID = "ab" * 32
PATHS = {
    "ref": MAIN,
    "info": "info/refs",
    "pack_file": f"packs/ab/{ID}.pack",
    "pack_table": f"packs/{ID}/table",
    "pack": f"packs/{ID}",
    "has": "has",
    "block": f"blocks/{ID}",
    "manifest": f"manifests/{ID}",
}
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND")
REFUSED = {401, 403, 429}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    root = tmp_path_factory.mktemp("guarded")
    make_store(root / "demo")[0].close()
    tokens = make_tokens(root)
    with serving(root, "anonymous=NONE") as server:
        yield Guarded(server.url, root, tokens)


def test_every_endpoint_has_a_rule(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as threads:
        access = Access(tmp_path)
        served = Handlers(Repositories(tmp_path, threads), threads, access, Quotas(access.quota))._table.keys()
    assert served == RULES.keys()
    assert _ENDPOINTS.keys() == PATHS.keys()
    for endpoint, path in PATHS.items():
        target = parse_path(f"/demo/{path}")
        assert target is not None
        assert target.endpoint == endpoint
    assert ACTIONS.keys() == {rule for rule, needed in RULES.items() if needed > Permission.READ}


@pytest.mark.parametrize("endpoint", PATHS)
@pytest.mark.parametrize("method", METHODS)
def test_table(guarded: Guarded, endpoint: str, method: str) -> None:
    needed = RULES.get(("GET" if method == "HEAD" else method, endpoint))
    for who in ("read", "write", "admin"):
        answer = guarded.ask(who, method, f"/demo/{PATHS[endpoint]}", b"")
        if needed is None:
            assert answer.status == 405
        elif Permission[who.upper()] >= needed:
            assert answer.status not in {*REFUSED, 405, 500}
        else:
            assert answer.status == 403
            assert answer.headers["WWW-Authenticate"].endswith('error="insufficient_scope"')
    if needed is not None:
        refusals: dict[str | None, set[int]] = {None: {401}, "none": {403}, "x": {401, 429}, "": {401, 429}}
        for shown, statuses in refusals.items():
            answer = guarded.ask(shown, method, f"/demo/{PATHS[endpoint]}", b"")
            assert answer.status in statuses
            assert (answer.headers["WWW-Authenticate"] == 'Bearer realm="shardfs"') is (answer.status == 401)


@pytest.mark.parametrize("allowed", Permission)
def test_table_for_everybody(tmp_path: Path, allowed: Permission) -> None:
    store, commits = make_store(tmp_path / "demo", 2)
    store.close()
    with serving(tmp_path, f"anonymous={allowed.name}") as server:
        for (method, endpoint), needed in RULES.items():
            status = ask(server.url, method, f"/demo/{PATHS[endpoint]}", b"").status
            assert (status == 401) is (needed > allowed), (method, endpoint, status)
        here = {"If_Match": f'"{commits[1].hex()}"'}
        back = ask(server.url, "PUT", f"/demo/{MAIN}", commits[0].hex().encode(), **here).status
        assert back == (200 if allowed is Permission.ADMIN else 401)


@pytest.mark.parametrize("endpoint", PATHS)
def test_other_repositories_cannot_be_told_from_nothing(guarded: Guarded, endpoint: str) -> None:
    def told(answer: Answer, name: str) -> tuple[int, bytes, list[str]]:
        return answer.status, answer.body.replace(name.encode(), b"N"), sorted(answer.headers.keys())

    for method in ("GET", "HEAD", "POST", "PUT", "DELETE"):
        for who in (None, "none"):
            here, nothing = (
                told(guarded.ask(who, method, f"/{name}/{PATHS[endpoint]}", b"", If_None_Match="*"), name)
                for name in ("demo", "nope")
            )
            assert here == nothing
    assert not (guarded.root / "nope").exists()


def test_shared_caches_keep_what_everybody_may_read_and_nothing_else(guarded: Guarded) -> None:
    (path,) = list((guarded.root / "demo/packs").rglob("*.pack"))[:1]
    name = f"/demo/packs/{path.parent.name}/{path.name}"
    kept = guarded.ask("read", "GET", name).headers["Cache-Control"]
    assert kept.startswith("private,")
    assert "immutable" in kept
    with serving(guarded.root, "anonymous=READ") as server:
        assert ask(server.url, "GET", name).headers["Cache-Control"].startswith("public,")
        shown = f"Bearer {guarded.tokens['read']}"
        assert ask(server.url, "GET", name, Authorization=shown).headers["Cache-Control"].startswith("public,")


def test_pages_of_the_server(guarded: Guarded) -> None:
    assert ask(guarded.url, "GET", "/healthz").status == 200
    everything = TokenStore(ServerFolder(guarded.root)).create("everything", ("*",), Permission.ADMIN)[1]
    reading = TokenStore(ServerFolder(guarded.root)).create("reading", ("*",), Permission.READ)[1]
    assert ask(guarded.url, "GET", "/metrics").status == 200  # this machine

    def through_a_proxy(who: str) -> int:
        return guarded.ask(who, "GET", "/metrics", X_Forwarded_For="127.0.0.1").status

    _until(lambda: through_a_proxy(everything) == 200)
    assert {through_a_proxy(who) for who in ("admin", "none", reading)} == {403}
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP"):
        assert ask(guarded.url, "GET", "/metrics", None, **{header: "127.0.0.1"}).status == 401


def test_records(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "source", 2)
    packs = {p.hex(): store.layout.pack(p).read_bytes() for p in store.index.packs()}
    store.close()
    root = tmp_path / "root"
    root.mkdir()
    tokens = make_tokens(root)
    with serving(root, "anonymous=NONE") as server:
        at = Guarded(server.url, root, tokens)
        for name, data in packs.items():
            assert at.ask("write", "PUT", f"/demo/packs/{name}", data).status == 201
        at.ask("write", "PUT", "/demo/packs/" + "0" * 64, b"x")
        at.ask("write", "PUT", f"/demo/{MAIN}", commits[0].hex().encode(), If_None_Match="*")
        at.ask("write", "PUT", f"/demo/{MAIN}", commits[1].hex().encode(), If_Match=f'"{commits[0].hex()}"')
        at.ask("write", "PUT", f"/demo/{MAIN}", commits[0].hex().encode(), If_Match=f'"{commits[1].hex()}"')
        at.ask("write", "DELETE", f"/demo/{MAIN}", None, If_Match=f'"{commits[1].hex()}"')
        at.ask("admin", "DELETE", f"/demo/{MAIN}", None, If_Match=f'"{commits[1].hex()}"')
        at.ask("read", "GET", "/demo/info/refs")
        at.ask(None, "GET", "/demo/info/refs")
        at.ask("nonsense", "GET", "/demo/info/refs")
    said = [record for record in at.records() if record["action"] != "make token"]
    first, second = (commit.hex() for commit in commits)
    told = [(r["action"], r.get("name"), r.get("old"), r.get("new"), r["status"]) for r in said[len(packs) + 1 :]]
    pushed = {record["id"]: (record["bytes"], record["status"]) for record in said[: len(packs)]}
    assert pushed == {name: (len(data), 201) for name, data in packs.items()}
    assert said[len(packs)]["status"] == 400
    assert told == [
        ("move ref", "write", None, first, 200),
        ("move ref", "write", first, second, 200),
        ("denied", "write", None, None, 403),
        ("move ref", "write", second, first, 403),
        ("denied", "write", None, None, 403),
        ("delete ref", "admin", second, None, 200),
        ("denied", None, None, None, 401),
    ]
    assert {record["address"] for record in said} == {"127.0.0.1"}
    assert not any(text.split("_")[2] in json.dumps(said) for text in tokens.values())
    reflog = (root / f"demo/logs/{MAIN}~").read_text().splitlines()
    assert [json.loads(line)["author"].split(" <")[0] for line in reflog] == ["write", "write", "admin"]


def test_client_that_leaves_is_recorded(tmp_path: Path) -> None:
    text = make_tokens(tmp_path)["write"]
    with serving(tmp_path, "anonymous=NONE") as server:
        parts = urlsplit(server.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        connection.putrequest("PUT", f"/demo/packs/{ID}")
        connection.putheader("Authorization", f"Bearer {text}")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b"x")
        _until(lambda: (tmp_path / "demo/tmp").is_dir() and any((tmp_path / "demo/tmp").iterdir()))
        connection.close()
        _until(lambda: audit(tmp_path)[-1]["action"] == "push pack")
    assert audit(tmp_path)[-1]["bytes"] == 1000


TRICKS = [
    "/.server/tokens.json", "//.server/tokens.json", "/./.server/tokens.json", "/demo/../.server/tokens.json",
    "/%2eserver/tokens.json", "/.server%2ftokens.json", "/demo/%2e%2e/.server/tokens.json", "/demo/..%2f.server/has",
    "/.server/info/refs", "/.server/has", "/demo//has", "//demo/has", "/demo/./info/refs", "/demo/../demo/info/refs",
    "/demo/packs/../../.server/tokens.json", "/demo/packs/ab/../../../.server/tokens.json", "/.server/refs/heads/main",
    "/demo/refs/../../.server/tokens.json", "/demo/refs/heads/../../../.server/tokens.json", "/demo/info/refs/",
    "/demo/refs/heads/%2e%2e/%2e%2e/.server/tokens.json", "/demo/refs/heads/..%2f..%2f..%2f.server%2ftokens.json",
    "/team/.server/info/refs", "/DEMO/info/refs", "/demo\\..\\.server/has", "/demo/info/refs%00", "/%64emo/info/refs",
    "/.server/packs/ab/" + ID + ".pack", "/*/info/refs", "/%2a/info/refs", "/demo/*/info/refs",
]  # fmt: skip


@pytest.mark.parametrize("path", TRICKS)
def test_tricks_with_paths(guarded: Guarded, path: str) -> None:
    secret = ServerFolder(guarded.root).tokens.read_bytes()[:60]
    for who in (None, "none"):
        for method in ("GET", "PUT", "DELETE"):
            answer = guarded.ask(who, method, path, b"")
            assert answer.status in {400, 401, 403, 404, 405}
            assert secret not in answer.body
            assert b"digest" not in answer.body
    answer = guarded.ask("admin", "GET", path)
    assert answer.status >= 400
    assert b"digest" not in answer.body


def test_one_header_and_no_other_counts(guarded: Guarded) -> None:
    text = guarded.tokens["read"]
    good = [f"Bearer {text}", f"bearer  {text} ", f"BEARER {text}", basic("user", text), basic("", text)]
    bad = [text, f"Bearer{text}", f"Token {text}", f"Basic {text}", basic(text, ""), basic("user", "secret"), "Basic é"]
    for value in good:
        assert ask(guarded.url, "GET", "/demo/info/refs", Authorization=value).status == 200
    for value in bad:
        assert ask(guarded.url, "GET", "/demo/info/refs", Authorization=value).status == 401
    for name in ("Cookie", "X-Authorization", "Proxy-Authorization", "X-Forwarded-User", "X-Original-URL"):
        assert ask(guarded.url, "GET", "/demo/info/refs", None, **{name: f"Bearer {text}"}).status == 401
    assert ask(guarded.url, "GET", f"/demo/info/refs?access_token={text}&token={text}").status == 401
    assert ask(guarded.url, "GET", "/demo/info/refs", X_HTTP_Method_Override="GET").status == 401


def test_near_misses_of_a_token(tmp_path: Path) -> None:
    make_store(tmp_path / "demo", 1)[0].close()
    text = make_tokens(tmp_path)["read"]
    _, id_, secret = text.split("_")
    other = "0" if secret[-1] != "0" else "1"
    near = [
        text[:-1], text + "0", text[:-1] + other, f"shardfs_{id_}_{'0' * 64}", f"shardfs_{'0' * 12}_{secret}",
        f"SHARDFS_{id_}_{secret}", text.upper(),
    ]  # fmt: skip
    with serving(tmp_path, "anonymous=NONE") as server:
        for shown in near:
            assert ask(server.url, "GET", "/demo/info/refs", Authorization=f"Bearer {shown}").status == 401
        assert ask(server.url, "GET", "/demo/info/refs", Authorization=f"Bearer {text}").status == 200


def test_two_headers_are_not_a_choice(guarded: Guarded) -> None:
    parts = urlsplit(guarded.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    connection.putrequest("GET", "/demo/info/refs")
    connection.putheader("Authorization", "Bearer nonsense")
    connection.putheader("Authorization", f"Bearer {guarded.tokens['read']}")
    connection.endheaders()
    assert connection.getresponse().status in {400, 401, 429}
    connection.close()


def test_revocation_and_expiry_while_the_server_runs(tmp_path: Path) -> None:
    make_store(tmp_path / "demo", 1)[0].close()
    tokens = TokenStore(ServerFolder(tmp_path))
    with serving(tmp_path, "anonymous=NONE") as server:

        def status(text: str) -> int:
            return ask(server.url, "GET", "/demo/info/refs", Authorization=f"Bearer {text}").status

        _, first = tokens.create("first", ("*",), Permission.READ)
        _, second = tokens.create("second", ("*",), Permission.READ, lifetime_s=2)
        _until(lambda: status(first) == status(second) == 200)
        tokens.revoke("first")
        _until(lambda: status(first) in (401, 429))
        _until(lambda: status(second) in (401, 429))


def _until(is_so: object) -> None:
    assert callable(is_so)
    for _ in range(400):
        if is_so():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not become so")


def test_anonymous_by_repository(tmp_path: Path) -> None:
    for name in ("open", "team/public", "team/secret"):
        make_store(tmp_path / name, 1)[0].close()
    folder = ServerFolder(tmp_path)
    folder.make()
    folder.config.write_text(
        '[default]\nanonymous = "none"\n[repository.open]\nanonymous = "write"\n'
        '[repository."team/*"]\nanonymous = "read"\n[repository."team/secret"]\nanonymous = "none"\n'
    )
    put = f"blocks/{chunk_id(b'x').hex()}"
    with serving(tmp_path, "anonymous=READ") as server:

        def statuses(name: str) -> tuple[int, int]:
            return (
                ask(server.url, "GET", f"/{name}/info/refs").status,
                ask(server.url, "PUT", f"/{name}/{put}", b"x").status,
            )

        assert statuses("open") == (200, 201)
        assert statuses("team/public") == (200, 401)
        assert statuses("team/secret") == (401, 401)
        assert statuses("nothing") == (401, 401)
        _, text = TokenStore(folder).create("elsewhere", ("team/secret",), Permission.READ)
        shown = f"Bearer {text}"  # takes nothing away that everybody may do
        _until(lambda: ask(server.url, "GET", "/team/secret/info/refs", Authorization=shown).status == 200)
        assert ask(server.url, "GET", "/open/info/refs", Authorization=shown).status == 200
        folder.config.write_text("")
        _until(lambda: statuses("team/secret") == (200, 401))


def test_proxy_is_believed_when_it_is_on_this_machine_and_was_asked_for(tmp_path: Path) -> None:
    make_tokens(tmp_path)
    for flags, address in ((["trust-proxy"], "2001:db8::5"), ([], "127.0.0.1")):
        with serving(tmp_path, "anonymous=NONE", *flags) as server:
            ask(server.url, "GET", "/demo/info/refs", Authorization="Bearer x", X_Forwarded_For="6.6.6.6, 2001:DB8::5")
            assert audit(tmp_path)[-1]["address"] == address
            for said in ("6.6.6.6", "nonsense", "127.0.0.1"):
                assert ask(server.url, "GET", "/metrics", X_Forwarded_For=said).status == 401
    with serving(tmp_path, "anonymous=NONE", "trust-proxy") as server:
        for said, address in (("::ffff:6.6.6.6", "6.6.6.6"), ("nonsense", "127.0.0.1"), ("1.2.3.4, ", "127.0.0.1")):
            ask(server.url, "GET", "/demo/info/refs", Authorization="Bearer x", X_Forwarded_For=said)
            assert audit(tmp_path)[-1]["address"] == address


def test_bad_tokens_wait_and_good_ones_do_not(tmp_path: Path) -> None:
    make_store(tmp_path / "demo", 1)[0].close()
    good = make_tokens(tmp_path)["read"]
    with serving(tmp_path, "anonymous=NONE") as server:

        def answer(text: str) -> Answer:
            return ask(server.url, "GET", "/demo/info/refs", Authorization=f"Bearer {text}")

        statuses = [answer(f"shardfs_{n:012x}_{'0' * 64}").status for n in range(15)]
        assert statuses[:10] == [401] * 10
        assert 429 in statuses
        late = answer("x")
        assert late.status == 429
        assert 0 < int(late.headers["Retry-After"]) <= 60
        assert answer(good).status == 200
    assert sum(record["action"] == "denied" for record in audit(tmp_path)) <= 12


def test_bad_tokens_from_everywhere_do_not_fill_the_audit_log(tmp_path: Path) -> None:
    with serving(tmp_path, "anonymous=NONE", "trust-proxy") as server:
        for number in range(200):
            said = {"Authorization": "Bearer x", "X-Forwarded-For": f"2001:db8:0:{number:x}::1"}
            assert ask(server.url, "GET", "/demo/info/refs", None, **said).status == 401
    assert 60 <= len(audit(tmp_path)) < 100


def test_unreadable_tokens_do_not_count_as_none(tmp_path: Path) -> None:
    folder = ServerFolder(tmp_path)
    folder.make()
    folder.tokens.mkdir()
    with pytest.raises(AssertionError, match="cannot be read"), serving(tmp_path, "anonymous=NONE"):
        pass
