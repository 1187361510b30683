"""The file of tokens."""

from __future__ import annotations

import json
import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.errors import AlreadyExistsError, MalformedError, RefNotFoundError, StoreError, UsageError
from shardfs.server.folder import ServerFolder
from shardfs.server.tokens import Permission, TokenStore, find, parse_tokens
from tests.unit.server.guarded import audit


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(ServerFolder(tmp_path))


def test_text_is_recognisable_and_nowhere_on_the_disk(store: TokenStore, tmp_path: Path) -> None:
    token, text = store.create("a", ("demo",), Permission.WRITE, lifetime_s=60)
    assert re.fullmatch(r"shardfs_[0-9a-f]{12}_[0-9a-f]{64}", text)
    assert text.split("_")[1] == token.id
    for path in (tmp_path / ".server").rglob("*"):
        assert path.is_dir() or text.split("_")[2] not in path.read_text()
    assert stat.S_IMODE(ServerFolder(tmp_path).tokens.stat().st_mode) == 0o600
    assert token.expires == token.created + 60


def test_found_by_its_text_alone(store: TokenStore, tmp_path: Path) -> None:
    token, text = store.create("a", ("demo",), Permission.WRITE)
    store.create("b", ("*",), Permission.READ)
    tokens = parse_tokens(ServerFolder(tmp_path).tokens.read_bytes())
    assert find(tokens, text) == token
    assert find({}, text) is None
    assert find(tokens, text[:-1] + ("1" if text[-1] == "0" else "0")) is None
    assert find(tokens, token.digest.hex()) is None


def test_expires_at_its_time(store: TokenStore) -> None:
    token, _ = store.create("a", ("demo",), Permission.READ, lifetime_s=60)
    assert not token.is_expired()
    assert token._replace(expires=int(time.time())).is_expired()


@given(st.text())
def test_no_other_text_finds_anything(text: str) -> None:
    line = '{"id":"00","name":"a","digest":"%s","repositories":["*"],"permission":"read","created":0,"expires":null}'
    tokens = parse_tokens(b'{"version":1,"tokens":[%s]}' % (line % ("11" * 32)).encode())
    assert find(tokens, text) is None
    assert find(tokens, f"shardfs_00_{text}") is None


def test_listed_by_age_and_revoked_by_name_or_id(store: TokenStore) -> None:
    made = [store.create(name, ("demo",), Permission.READ)[0] for name in ("b", "a", "c")]
    assert [token.name for token in store.list()] == ["b", "a", "c"]
    assert store.revoke("a") == made[1]
    assert store.revoke(made[2].id) == made[2]
    assert store.list() == [made[0]]
    with pytest.raises(RefNotFoundError, match="token list"):
        store.revoke("a")
    store.create("a", ("demo",), Permission.READ)


def test_names_are_taken_once(store: TokenStore) -> None:
    store.create("a", ("demo",), Permission.READ, lifetime_s=1)
    with pytest.raises(AlreadyExistsError, match="revoke"):
        store.create("a", ("demo",), Permission.READ)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a\n", "ä", "a" * 65, "../a", "<a>", "a\0"])
def test_odd_names(store: TokenStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.create(name, ("demo",), Permission.READ)


def test_log_has_what_was_made_and_revoked(store: TokenStore, tmp_path: Path) -> None:
    token, _ = store.create("a", ("x", "team/*"), Permission.WRITE)
    store.revoke("a")
    made, revoked = audit(tmp_path)
    assert (made["action"], made["name"], made["permission"]) == ("make token", "a", "write")
    assert made["repositories"] == ["x", "team/*"]
    assert (revoked["action"], revoked["id"]) == ("revoke token", token.id)
    assert made["by"]


def test_no_root(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nowhere"):
        TokenStore(ServerFolder(tmp_path / "nowhere")).create("a", ("*",), Permission.READ)
    assert not (tmp_path / "nowhere").exists()


GOOD = {
    "id": "0" * 12,
    "name": "a",
    "digest": "11" * 32,
    "repositories": ["*"],
    "permission": "read",
    "created": 1,
    "expires": None,
}


def test_format_of_the_file() -> None:
    (token,) = parse_tokens(json.dumps({"version": 1, "tokens": [GOOD]}).encode()).values()
    assert token == ("0" * 12, "a", b"\x11" * 32, ("*",), Permission.READ, 1, None)


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "11"}, {"digest": "00" * 32}, {"digest": None}, {"permission": "root"}, {"repositories": "all"},
        {"repositories": ["../x"]}, {"repositories": None}, {"created": "x"}, {"expires": []}, {"name": "a\nb"},
        {"name": 1},
    ],
)  # fmt: skip
def test_damaged_entries(change: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        parse_tokens(json.dumps({"version": 1, "tokens": [{**GOOD, **change}]}).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"version":2,"tokens":[]}', b'{"version":1}'])
def test_damaged_files(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_tokens(data)


_MAKER = """
import sys
from pathlib import Path
from shardfs.server.folder import ServerFolder
from shardfs.server.tokens import Permission, TokenStore
store = TokenStore(ServerFolder(Path(sys.argv[1])))
for number in range(1000):
    print(store.create(f"{sys.argv[2]}.{number}", ("*",), Permission.READ)[1], flush=True)
"""


def test_killed_at_any_moment(store: TokenStore, tmp_path: Path) -> None:
    texts: list[str] = []
    for count in range(1, 5):
        argv = [sys.executable, "-c", _MAKER, str(tmp_path), str(count)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as maker:
            assert maker.stdout is not None
            texts += [maker.stdout.readline().strip() for _ in range(count)]
            maker.kill()
        tokens = parse_tokens(ServerFolder(tmp_path).tokens.read_bytes())
        assert all(find(tokens, text) for text in texts)
        store.create(f"after-{count}", ("*",), Permission.READ)


def test_permission_for_repositories(store: TokenStore) -> None:
    token, _ = store.create("a", ("demo", "team/*"), Permission.WRITE)
    reached = {
        name for name in ("demo", "demo/x", "team", "team/a", "team/a/b", "teams/a") if token.permission_for(name)
    }
    assert reached == {"demo", "team/a", "team/a/b"}
    token, _ = store.create("b", ("*",), Permission.READ)
    assert token.permission_for("anything/at/all") is Permission.READ
