"""Who may do what: one rule for each method of each endpoint, asked before anything is looked for on the disk."""

from __future__ import annotations

import binascii
import ipaddress
import math
from base64 import b64decode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiohttp import web

from shardfs.server.attempts import Attempts
from shardfs.server.audit import AuditLog
from shardfs.server.folder import ServerFolder
from shardfs.server.hosts import OwnNames
from shardfs.server.limits import network
from shardfs.server.patterns import EVERY
from shardfs.server.routes import Target
from shardfs.server.rules import Rules, parse_rules
from shardfs.server.tokens import PREFIX, Permission, Token, find, parse_tokens
from shardfs.server.watched import Watched

# Writing adds, and takes nothing away: a token that leaks from a trainer cannot lose what others stored.
RULES: Final = {
    ("GET", "info"): Permission.READ,
    ("GET", "pack_file"): Permission.READ,
    ("GET", "pack_table"): Permission.READ,
    ("PUT", "pack"): Permission.WRITE,
    ("POST", "has"): Permission.READ,
    ("GET", "ref"): Permission.READ,
    ("PUT", "ref"): Permission.WRITE,
    ("DELETE", "ref"): Permission.ADMIN,
    ("GET", "block"): Permission.READ,
    ("PUT", "block"): Permission.WRITE,
    ("GET", "manifest"): Permission.READ,
    ("PUT", "manifest"): Permission.WRITE,
}

_BAD_TOKENS: Final = 10  # of one address in a minute; then it waits
_REFUSALS: Final = 60  # of one token in a minute, or of all that nobody knows, that are recorded
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="shardfs"'}
_OTHER_TOKEN: Final = {"WWW-Authenticate": 'Bearer realm="shardfs", error="insufficient_scope"'}  # RFC 6750, 3.1
_FORWARDED: Final = ("X-Forwarded-For", "Forwarded", "X-Real-IP")
_CALLER: Final = "shardfs.caller"


class Caller(NamedTuple):
    """Who sent a request.

    Attributes:
        address: where it came from.
        token: what was shown; None: nothing.
        permission: what the sender may do in the repository that is asked for.
        is_public: whether everybody may read there.
    """

    address: str
    token: Token | None
    permission: Permission
    is_public: bool = False

    @property
    def author(self) -> str:
        """Who did it, for reflogs."""
        return f"http {self.address}" if self.token is None else f"{self.token.name} <http {self.address}>"

    @property
    def fields(self) -> dict[str, Any]:
        """Who did it, for the audit log."""
        if self.token is None:
            return {"address": self.address}
        return {"address": self.address, "token": self.token.id, "name": self.token.name}


class Access:
    """The rules of one server. For one event loop.

    Args:
        root: directory of all repositories.
        anonymous: what those may do who show no token, where the settings file does not say.
        trust_proxy: believe a web server on this machine about where a request came from.
        names: of the server, which those who show no token must ask for; None: any will do.

    Raises:
        MalformedError, StoreError: the file of tokens or of rules cannot be used.
    """

    def __init__(
        self,
        root: Path,
        *,
        anonymous: Permission = Permission.NONE,
        trust_proxy: bool = False,
        names: OwnNames | None = None,
    ) -> None:
        folder = ServerFolder(root)
        self.anonymous = anonymous
        self._names = names
        self._trust_proxy = trust_proxy
        self.audit = AuditLog(folder)
        self._tokens = Watched[Mapping[str, Token]](folder.tokens, parse_tokens, {})
        self._rules = Watched(folder.config, parse_rules, Rules(), by_hand=True)
        self._bad_tokens = Attempts(_BAD_TOKENS, 60)
        self._refusals = Attempts(_REFUSALS, 60)

    def check(self, request: web.Request, target: Target) -> None:
        """Refuse what the sender of a request may not do; remember who it is for `caller_of`.

        Raises:
            web.HTTPUnauthorized: not without a token, or the token is not good. web.HTTPForbidden: not with this one.
            web.HTTPTooManyRequests: too many bad tokens from this address.
            web.HTTPMisdirectedRequest: everybody may do this, but asked for by another name.
        """
        needed = RULES["GET" if request.method == "HEAD" else request.method, target.endpoint]
        address = self.address(request)
        token = self._token(request, address)
        anonymous = self._rules.get().anonymous(target.repository)
        open_to_all = self.anonymous if anonymous is None else anonymous
        own = Permission.NONE if token is None else token.permission_for(target.repository)
        caller = Caller(address, token, max(open_to_all, own), open_to_all >= Permission.READ)
        if caller.permission < needed:
            self._refuse(caller, needed, target.repository)
        if token is None:
            self._check_name(request)
        request[_CALLER] = caller

    def check_server(self, request: web.Request) -> None:
        """Refuse all but administrators of every repository, and programs on this machine; for what is about all.

        Raises:
            web.HTTPUnauthorized, web.HTTPForbidden, web.HTTPTooManyRequests, web.HTTPMisdirectedRequest: as `check`.
        """
        address = self.address(request)
        if _is_loopback(address) and not any(name in request.headers for name in _FORWARDED):
            self._check_name(request)
            return
        token = self._token(request, address)
        if token is None or EVERY not in token.repositories or token.permission < Permission.ADMIN:
            self._refuse(Caller(address, token, Permission.NONE), Permission.ADMIN, EVERY)

    def address(self, request: web.Request) -> str:
        """Where a request came from; "unknown" if not from an address."""
        peer = _plain(request.remote or "")
        if self._trust_proxy and _is_loopback(peer):
            # The last entry is the one that the proxy itself wrote; whoever asks may have sent those before it.
            said = request.headers.getall("X-Forwarded-For", [""])[-1].rpartition(",")[2].strip()
            return _plain(said) or peer
        return peer or "unknown"

    def check_loss(self, request: web.Request, target: Target) -> None:
        """Refuse a change that takes something away, unless the sender may do that.

        Raises:
            web.HTTPUnauthorized, web.HTTPForbidden: as `check`.
        """
        caller = caller_of(request)
        if caller.permission < Permission.ADMIN:
            self._refuse(caller, Permission.ADMIN, target.repository)

    def quota(self, repository: str) -> int | None:
        """Most bytes of packs of a repository; None: as many as the disk takes."""
        return self._rules.get().quota(repository)

    def is_closed(self) -> bool:
        """Whether nobody can get in."""
        return not (self.anonymous or self._tokens.get() or self._rules.get().lets_anybody_in())

    def _check_name(self, request: web.Request) -> None:
        host = request.headers.get("Host", "")
        if self._names is not None and not self._names.has(host):
            said = f"without a token this server is not asked for by the name {host[:100]!a}; see --host-name"
            raise web.HTTPMisdirectedRequest(text=said)

    def _token(self, request: web.Request, address: str) -> Token | None:
        text = _shown(request.headers.get("Authorization", ""))
        if text is None:
            return None
        token = find(self._tokens.get(), text)
        if token is not None and not token.is_expired():
            return token
        # Good tokens are let in meanwhile: others may share the address.
        who = network(address)
        wait_s = self._bad_tokens.wait_s(who)
        if wait_s:
            headers = {"Retry-After": str(math.ceil(wait_s))}
            raise web.HTTPTooManyRequests(text="too many bad tokens from this address", headers=headers)
        self._bad_tokens.add(who)
        self._record(Caller(address, token, Permission.NONE), 401)
        if token is None:
            raise web.HTTPUnauthorized(text="the token is not known here")
        raise web.HTTPUnauthorized(text=f"the token {token.name} has expired")

    def _refuse(self, caller: Caller, needed: Permission, repository: str) -> None:
        what = needed.name.lower()
        if caller.token is None:
            raise web.HTTPUnauthorized(text=f"this needs a token with the permission {what}")
        self._record(caller, 403, repository=repository, permission=what)
        where = "all repositories" if repository == EVERY else repository
        said = f"the token {caller.token.name} has not the permission {what} for {where}"
        raise web.HTTPForbidden(text=said, headers=_OTHER_TOKEN)

    def _record(self, caller: Caller, status: int, **fields: str) -> None:
        """Write a refusal down, unless there are so many that they would push what was done out of the log."""
        of = "" if caller.token is None else caller.token.id
        if not self._refusals.wait_s(of):
            self._refusals.add(of)
            self.audit.write("denied", **caller.fields, **fields, status=status)


def caller_of(request: web.Request) -> Caller:
    """Who sent a request that was let in."""
    found = request[_CALLER]
    assert isinstance(found, Caller)
    return found


def keep_private(request: web.Request, response: web.StreamResponse) -> web.StreamResponse:
    """The answer, marked so that no cache on its way hands out to everybody what not everybody may read."""
    kept = response.headers.get("Cache-Control", "")
    if not caller_of(request).is_public:
        response.headers["Cache-Control"] = kept.replace("public", "private") if kept else "private, no-cache"
    return response


def challenge(status: int) -> dict[str, str]:
    """Headers that an answer of this status carries to say how to get in."""
    return dict(_CHALLENGE) if status == 401 else {}


def _shown(header: str) -> str | None:
    """The token in the value of Authorization; None: there is none.

    A password that has not the form of a token is for a proxy in front, which left it in.
    """
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip()
    if scheme.lower() == "basic":
        try:
            password = b64decode(rest.strip(), validate=True).decode("utf-8", "replace").partition(":")[2]
        except (binascii.Error, ValueError):
            return None
        return password if password.startswith(PREFIX) else None
    return None


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _plain(address: str) -> str:
    """An address as everybody writes it: IPv4 as such also where it came in IPv6. Empty for anything else."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    mapped = found.ipv4_mapped if found.version == 6 else None
    return str(mapped or found)
