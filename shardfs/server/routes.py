"""From a request's path to a repository and what is wanted of it.

Paths are matched as they came, before any percent-decoding: an encoded slash or dot matches nothing. Everything that
becomes part of a file name is taken from a pattern that cannot express anything outside the repository.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

from shardfs.errors import MalformedError
from shardfs.formats.ref import is_ref_name

# First path components inside a store, and `healthz`: a repository of such a name could not be told from them.
_RESERVED: Final = (
    "blocks|config\\.toml|has|healthz|HEAD|index\\.sqlite.*|info|lock|logs|manifests|packs|refs|staging|tmp"
)
_NAME: Final = rf"(?!(?:{_RESERVED})(?:/|$))[A-Za-z0-9_][A-Za-z0-9._-]{{0,99}}"
_MAX_DEPTH: Final = 8
_MAX_PATH: Final = 2000  # characters: more than the longest names take; matching takes longer with the square
_HEX64: Final = r"[0-9a-f]{64}"
_REPOSITORY = re.compile(rf"{_NAME}(?:/{_NAME}){{0,{_MAX_DEPTH - 1}}}")

# "ref" first: a branch may be called like an endpoint, a repository may not have a component "refs".
_ENDPOINTS: Final = {
    "ref": re.compile(r"(?P<repository>.+?)/(?P<ref>refs/[^?#]{1,1000})"),
    "info": re.compile(r"(?P<repository>.+?)/info/(?P<listing>refs|packs)"),
    "pack_file": re.compile(rf"(?P<repository>.+?)/packs/(?P<folder>[0-9a-f]{{2}})/(?P<id>{_HEX64})\.pack"),
    "pack_table": re.compile(rf"(?P<repository>.+?)/packs/(?P<id>{_HEX64})/table"),
    "pack": re.compile(rf"(?P<repository>.+?)/packs/(?P<id>{_HEX64})"),
    "has": re.compile(r"(?P<repository>.+?)/has"),
    "block": re.compile(rf"(?P<repository>.+?)/blocks/(?P<id>{_HEX64})"),
    "manifest": re.compile(rf"(?P<repository>.+?)/manifests/(?P<id>{_HEX64})"),
}


class Target(NamedTuple):
    """What a path names.

    Attributes:
        endpoint: one of the documented endpoints.
        repository: relative path of the repository below the root, checked.
        id: id in the path, or empty.
        ref: full ref name in the path, checked, or empty.
        listing: "refs" or "packs" for the endpoint "info", or empty.
    """

    endpoint: str
    repository: str
    id: bytes = b""
    ref: str = ""
    listing: str = ""


def parse_path(raw_path: str) -> Target | None:
    """What the path of a request names; None when it names nothing.

    Raises:
        MalformedError: the path has the form of an endpoint, and a name or ref in it is not acceptable.
    """
    if len(raw_path) > _MAX_PATH:
        return None
    for endpoint, pattern in _ENDPOINTS.items():
        found = pattern.fullmatch(raw_path.removeprefix("/"))
        if found is None:
            continue
        groups = found.groupdict()
        if groups.get("folder") not in (None, groups.get("id", "")[:2]):
            return None
        return Target(
            endpoint,
            _checked_repository(groups["repository"]),
            bytes.fromhex(groups.get("id") or ""),
            _checked_ref(groups["ref"]) if "ref" in groups else "",
            groups.get("listing") or "",
        )
    return None


def is_repository(name: str) -> bool:
    """Whether this can be the name of a repository."""
    return _REPOSITORY.fullmatch(name) is not None


def _checked_repository(name: str) -> str:
    if not is_repository(name):
        taken = [part for part in name.split("/") if re.fullmatch(_RESERVED, part)]
        rule = f"{taken[0]!r} is taken" if taken else "use letters, digits, '.', '_' and '-', not '.' or '-' first"
        msg = f"not a repository name: {name[:80]!r}; {rule}"
        raise MalformedError(msg)
    return name


def _checked_ref(quoted: str) -> str:
    try:
        name = unquote_to_bytes(quoted).decode("utf-8")
    except UnicodeDecodeError:
        name = ""
    if not is_ref_name(name):
        msg = f"not a ref name: {quoted[:80]!r}"
        raise MalformedError(msg)
    return name
