"""A server that wants tokens, and tokens for it."""

from __future__ import annotations

import json
from base64 import b64encode
from pathlib import Path
from typing import Any, NamedTuple

from shardfs.server.folder import ServerFolder
from shardfs.server.tokens import Permission, TokenStore
from tests.unit.server.byhand import Answer, ask


class Guarded(NamedTuple):
    """A server with tokens: `none` opens another repository, the others `demo`."""

    url: str
    root: Path
    tokens: dict[str, str]

    def ask(self, who: str | None, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        shown = {} if who is None else {"Authorization": f"Bearer {self.tokens.get(who, who)}"}
        return ask(self.url, method, path, body, **shown, **headers)

    def records(self) -> list[dict[str, Any]]:
        return audit(self.root)


def make_tokens(root: Path) -> dict[str, str]:
    store = TokenStore(ServerFolder(root))
    tokens = {
        permission.name.lower(): store.create(permission.name.lower(), ("demo",), permission)[1]
        for permission in (Permission.READ, Permission.WRITE, Permission.ADMIN)
    }
    return {**tokens, "none": store.create("none", ("other", "team/*"), Permission.ADMIN)[1]}


def audit(root: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ServerFolder(root).audit.read_text().splitlines()]


def basic(user: str, password: str) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()
