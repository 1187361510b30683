"""Tokens: what opens a server. The file holds digests; the text of a token is known to whoever made it alone."""

from __future__ import annotations

import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final, NamedTuple

from blake3 import blake3

from shardfs.errors import AlreadyExistsError, MalformedError, RefNotFoundError, StoreError, UsageError
from shardfs.server.audit import AuditLog, local_user
from shardfs.server.folder import PRIVATE, ServerFolder
from shardfs.server.patterns import check_pattern, matches
from shardfs.store import atomic
from shardfs.store.locks import WriterLock

PREFIX: Final = "shardfs_"
VERSION: Final = 1
_ID_SIZE: Final = 6  # bytes; what people see and type
_SECRET_SIZE: Final = 32  # bytes; nobody guesses one, so that a plain digest is enough
_TEXT = re.compile(rf"{PREFIX}(?P<id>[0-9a-f]{{{2 * _ID_SIZE}}})_[0-9a-f]{{{2 * _SECRET_SIZE}}}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_LOCK_WAIT_S: Final = 20.0
_NOBODY: Final = bytes(32)


class Permission(IntEnum):
    """What somebody may do; each one includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


class Token(NamedTuple):
    """What a server knows of a token.

    Attributes:
        id: the part of its text that is no secret.
        name: what people call it.
        digest: BLAKE3 of its text.
        repositories: patterns of those that it opens.
        permission: what it allows there.
        created: Unix time.
        expires: Unix time from which on it opens nothing; None: never.
    """

    id: str
    name: str
    digest: bytes
    repositories: tuple[str, ...]
    permission: Permission
    created: int
    expires: int | None

    def permission_for(self, repository: str) -> Permission:
        """What it allows in a repository."""
        found = any(matches(pattern, repository) for pattern in self.repositories)
        return self.permission if found else Permission.NONE

    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and time.time() >= self.expires


class TokenStore:
    """The tokens of one server. Safe to use in several processes at once.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: ServerFolder) -> None:
        self._folder = folder
        self._audit = AuditLog(folder)

    def list(self) -> list[Token]:
        """All tokens, the oldest first.

        Raises:
            MalformedError, StoreError: the file is damaged or unreadable.
        """
        with self._folder.owner():
            return sorted(self._read().values(), key=lambda token: token.created)

    def create(
        self, name: str, repositories: tuple[str, ...], permission: Permission, lifetime_s: int | None = None
    ) -> tuple[Token, str]:
        """Make a token.

        Args:
            name: what people call it; no other token has it.
            repositories: patterns of those that it opens, at least one.
            permission: what it allows there.
            lifetime_s: seconds from now on in which it is good; None: for ever.

        Returns:
            The token, and its text, which is not kept.

        Raises:
            AlreadyExistsError: the name is taken. UsageError: not a name, or not a pattern.
            LockedError, MalformedError, OutOfSpaceError, ReadOnlyError, StoreError: by the file.
        """
        if not _NAME.fullmatch(name):
            msg = f"not a name of a token: {name[:80]!r}; use up to 64 letters, digits, '.', '_', '@' and '-'"
            raise UsageError(msg)
        patterns = tuple(dict.fromkeys(check_pattern(pattern) for pattern in repositories))
        with self._folder.owner():
            self._folder.make()
            with WriterLock(self._folder.lock, _LOCK_WAIT_S).hold("token"):
                tokens = self._read()
                if any(token.name == name for token in tokens.values()):
                    msg = f"there is a token {name} already; choose another name, or revoke it first"
                    raise AlreadyExistsError(msg)
                id_ = next(id_ for id_ in iter(lambda: secrets.token_hex(_ID_SIZE), "") if id_ not in tokens)
                text = f"{PREFIX}{id_}_{secrets.token_hex(_SECRET_SIZE)}"
                now = int(time.time())
                expires = None if lifetime_s is None else now + lifetime_s
                token = Token(id_, name, _digest(text), patterns, permission, now, expires)
                self._write({**tokens, id_: token})
            what = _to_json(token)
            del what["digest"]
            self._audit.write("make token", **what, by=local_user())
        return token, text

    def revoke(self, name: str) -> Token:
        """Forget a token, by its name or id; what it opened is closed a second later.

        Raises:
            RefNotFoundError: no such token.
            LockedError, MalformedError, OutOfSpaceError, ReadOnlyError, StoreError: by the file.
        """
        with self._folder.owner():
            found = self._named(name)
            with WriterLock(self._folder.lock, _LOCK_WAIT_S).hold("token"):
                tokens = self._read()
                if tokens.pop(found.id, None) is None:
                    raise _unknown(name)
                self._write(tokens)
            self._audit.write("revoke token", id=found.id, name=found.name, by=local_user())
        return found

    def _named(self, name: str) -> Token:
        tokens = self._read()
        for token in tokens.values():
            if token.name == name:
                return token
        if name not in tokens:
            raise _unknown(name)
        return tokens[name]

    def _read(self) -> dict[str, Token]:
        try:
            data = self._folder.tokens.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            msg = f"{self._folder.tokens} cannot be read: {error.strerror}"
            raise StoreError(msg) from error
        return dict(parse_tokens(data))

    def _write(self, tokens: Mapping[str, Token]) -> None:
        value = {"version": VERSION, "tokens": [_to_json(token) for token in tokens.values()]}
        data = json.dumps(value, indent=1).encode() + b"\n"
        atomic.write_bytes(self._folder.tokens, data, self._folder.tmp, PRIVATE)


def find(tokens: Mapping[str, Token], text: str) -> Token | None:
    """The token with this text, expired or not; None: there is none.

    How long it takes says nothing about digests.
    """
    form = _TEXT.fullmatch(text)
    token = None if form is None else tokens.get(form["id"])
    right = hmac.compare_digest(_digest(text), _NOBODY if token is None else token.digest)
    return token if right else None


def parse_tokens(data: bytes) -> Mapping[str, Token]:
    """The tokens of a file, by id.

    Raises:
        MalformedError: not of the format, or of a newer one.
    """
    with suppress(ValueError, TypeError, KeyError, AttributeError, UsageError, RecursionError):
        value = json.loads(data)
        if value["version"] == VERSION:
            tokens = [_from_json(item) for item in value["tokens"]]
            return {token.id: token for token in tokens}
    msg = (
        "the file of tokens is damaged, or a newer shardfs wrote it; put a copy back, or delete it and make new tokens"
    )
    raise MalformedError(msg)


def _unknown(name: str) -> RefNotFoundError:
    return RefNotFoundError(f"no token {name[:80]!r}; `shardfs token list` shows all")


def _digest(text: str) -> bytes:
    return blake3(text.encode("utf-8", "surrogatepass")).digest()


def _to_json(token: Token) -> dict[str, Any]:
    return {
        **token._asdict(),
        "digest": token.digest.hex(),
        "repositories": list(token.repositories),
        "permission": token.permission.name.lower(),
    }


def _from_json(item: dict[str, Any]) -> Token:
    expires, patterns = item["expires"], item["repositories"]
    digest = bytes.fromhex(item["digest"])
    if not _NAME.fullmatch(item["name"]) or not isinstance(patterns, list):
        raise ValueError
    if len(digest) != len(_NOBODY) or digest == _NOBODY:
        raise ValueError
    return Token(
        str(item["id"]),
        item["name"],
        digest,
        tuple(check_pattern(pattern) for pattern in patterns),
        Permission[item["permission"].upper()],
        int(item["created"]),
        None if expires is None else int(expires),
    )
