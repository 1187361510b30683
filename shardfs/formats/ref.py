"""Names of commits: ref names, ref files, HEAD, reflog lines and the two listings of a store.

Spec: docs/design/format/ref.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from blake3 import blake3

from shardfs.errors import MalformedError, UnsupportedVersionError, UsageError
from shardfs.formats.canonical import brief
from shardfs.formats.ids import CommitId, PackId, from_hex
from shardfs.formats.pack import MAX_PACK_SIZE

BRANCHES: Final = "refs/heads/"
TAGS: Final = "refs/tags/"
REMOTES: Final = "refs/remotes/"
DEFAULT_BRANCH: Final = "main"
MAX_REF_NAME_SIZE: Final = 200  # bytes; remote-tracking names may be longer by the name of their remote
_MAX_REMOTE_NAME_SIZE: Final = 64  # bytes

# A component holds no control character, blank (of any script) or any of ~ ^ : ? * [ \ and neither starts with "."
# or "-" nor ends with "." or ".lock": every name is also a safe relative path, a safe URL path, one word of a
# revision and one line of a listing.
_COMPONENT = re.compile(r"(?![.-])[^\x00-\x20\x7f-\x9f\s~^:?*\[\\/]+(?<!\.)(?<!\.lock)")
_NAMESPACES: Final = (BRANCHES, TAGS, REMOTES)
_CHECK_SIZE: Final = 8  # bytes of a digest
_HEX_LIKE = re.compile(r"[0-9a-f]{4,64}")


def is_ref_name(name: str) -> bool:
    """Whether `name` is a full ref name below refs/heads/, refs/tags/ or refs/remotes/."""
    prefix = next((n for n in _NAMESPACES if name.startswith(n)), None)
    if prefix is None:
        return False
    try:
        size = len(name.encode("utf-8"))
    except UnicodeEncodeError:
        return False
    parts = name[len(prefix) :].split("/")
    limit = MAX_REF_NAME_SIZE
    if prefix == REMOTES:
        # What a remote may call a branch, a clone must be able to track.
        limit += len(REMOTES) + _MAX_REMOTE_NAME_SIZE + 1 - len(BRANCHES)
        if len(parts) < 2:
            return False
    return size <= limit and all(_COMPONENT.fullmatch(p) for p in parts) and ".." not in name and "@{" not in name


def check_ref_name(name: str) -> str:
    """`name` if it is a full ref name.

    Raises:
        MalformedError: else.
    """
    if not is_ref_name(name):
        msg = f"not a ref name: {name[:80]!r}"
        raise MalformedError(msg)
    return name


def full_name(namespace: str, short: str) -> str:
    """The full name of a branch or tag that a user names.

    Raises:
        UsageError: a name that the grammar refuses, or that reads like an id or HEAD.
    """
    name = namespace + short
    if not is_ref_name(name) or short == "HEAD" or _HEX_LIKE.fullmatch(short):
        msg = f"{short!r} cannot be a name: no blanks, '..', '~', '^', ':', no leading '-' or '.', not like a commit id"
        raise UsageError(msg)
    return name


def ref_to_bytes(commit: CommitId) -> bytes:
    """Content of a ref file."""
    return commit.hex().encode("ascii") + b"\n"


def ref_from_bytes(data: bytes) -> CommitId:
    """The commit that a ref file names.

    Raises:
        MalformedError: anything but 64 lower-case hexadecimal digits and a newline.
    """
    if len(data) != 65 or data[64:] != b"\n":
        msg = "a ref file holds 64 hexadecimal digits and a newline"
        raise MalformedError(msg)
    return CommitId(from_hex(data[:64].decode("ascii", "replace"), "ref"))


@dataclass(frozen=True, slots=True)
class Head:
    """What HEAD names: a branch (full ref name, which may not exist yet) or, detached, a commit."""

    branch: str | None
    commit: CommitId | None = None

    def to_bytes(self) -> bytes:
        """Content of the HEAD file."""
        if self.branch is not None:
            return b"ref: " + self.branch.encode("utf-8") + b"\n"
        if self.commit is None:
            msg = "HEAD needs a branch or a commit"
            raise MalformedError(msg)
        return ref_to_bytes(self.commit)

    @classmethod
    def from_bytes(cls, data: bytes) -> Head:
        """The value of a HEAD file.

        Raises:
            MalformedError: neither "ref: refs/heads/..." nor an id.
        """
        if data.startswith(b"ref: ") and data.endswith(b"\n"):
            name = data[5:-1].decode("utf-8", "surrogateescape")  # no ref name has a surrogate
            if name.startswith(BRANCHES) and is_ref_name(name):
                return cls(name)
            msg = f"HEAD names no branch: {name[:80]!r}"
            raise MalformedError(msg)
        return cls(None, ref_from_bytes(data))


@dataclass(frozen=True, slots=True)
class RefMove:
    """A ref that moved: None stands for "did not exist" and "is gone"."""

    name: str
    old: CommitId | None
    new: CommitId | None


@dataclass(frozen=True, slots=True)
class LogLine:
    """One move of a ref; `old` is None when it was created, `new` when it was deleted."""

    old: CommitId | None
    new: CommitId | None
    time_us: int
    author: str
    message: str

    def to_bytes(self) -> bytes:
        """One line of a reflog."""
        value = {
            "old": self.old.hex() if self.old else None,
            "new": self.new.hex() if self.new else None,
            "time_us": self.time_us,
            "author": self.author,
            "message": self.message,
        }
        return json.dumps(value).encode("ascii") + b"\n"

    @classmethod
    def from_bytes(cls, line: bytes) -> LogLine:
        """The move in one line.

        Raises:
            MalformedError: a torn or foreign line.
        """
        msg = f"reflog line cannot be read: {line[:80]!r}"
        try:
            value = json.loads(line)
            old, new = (None if value[k] is None else CommitId(from_hex(value[k])) for k in ("old", "new"))
            time_us, author, message = value["time_us"], value["author"], value["message"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise MalformedError(msg) from error
        if type(time_us) is not int or not isinstance(author, str) or not isinstance(message, str):
            raise MalformedError(msg)
        return cls(old, new, time_us, author, message)


@dataclass(frozen=True, slots=True)
class PackSize:
    """A pack of a store: id and size in bytes."""

    id: PackId
    size: int


def refs_to_bytes(head: str | None, refs: Mapping[str, CommitId]) -> bytes:
    """The listing `info/refs`."""
    listed = {name: commit.hex() for name, commit in sorted(refs.items())}
    return _listing_to_bytes({"version": 1, "head": head, "refs": listed})


def refs_from_bytes(data: bytes) -> tuple[str | None, dict[str, CommitId]]:
    """Head (full name of a branch or None) and refs of the listing `info/refs`.

    Raises:
        MalformedError: not a listing, bad names or ids. UnsupportedVersionError: a listing of another version.
    """
    value = _listing(data, "refs")
    if not isinstance(value["refs"], dict):
        msg = "info/refs: refs is not an object"
        raise MalformedError(msg)
    head = value.get("head")
    if head is not None and not (isinstance(head, str) and head.startswith(BRANCHES) and is_ref_name(head)):
        msg = "info/refs: head is not the name of a branch"
        raise MalformedError(msg)
    refs = {check_ref_name(n): CommitId(from_hex(i, "ref")) for n, i in value["refs"].items()}
    return head, refs


def packs_to_bytes(packs: list[PackSize]) -> bytes:
    """The listing `info/packs`."""
    listed = [{"id": p.id.hex(), "size": p.size} for p in packs]
    return _listing_to_bytes({"version": 1, "packs": listed})


def packs_from_bytes(data: bytes) -> list[PackSize]:
    """The packs of the listing `info/packs`.

    Raises:
        MalformedError: not a listing, bad ids or sizes. UnsupportedVersionError: a listing of another version.
    """
    value = _listing(data, "packs")
    try:
        packs = [PackSize(PackId(from_hex(p["id"], "pack id")), p["size"]) for p in value["packs"]]
    except (TypeError, KeyError) as error:
        msg = "info/packs: an entry needs id and size"
        raise MalformedError(msg) from error
    for pack in packs:
        if type(pack.size) is not int or not 0 < pack.size <= MAX_PACK_SIZE:
            msg = f"info/packs: size of pack {pack.id.hex()[:12]} is out of limits"
            raise MalformedError(msg)
    return packs


def _listing_to_bytes(value: dict[str, Any]) -> bytes:
    return json.dumps({**value, "check": _check(value)}, indent=0).encode() + b"\n"


def _check(value: dict[str, Any]) -> str:
    """What tells that one bit of a listing is another: no id does, and a name of a ref is as good as its neighbour."""
    rest = {key: value[key] for key in value if key != "check"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return blake3(text.encode("ascii")).hexdigest(length=_CHECK_SIZE)


def _listing(data: bytes, key: str) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        msg = f"info/{key} is not JSON: {error}"
        raise MalformedError(msg) from error
    if not isinstance(value, dict) or type(value.get("version")) is not int or key not in value:
        msg = f"info/{key} is not a listing"
        raise MalformedError(msg)
    if value["version"] != 1:
        msg = f"info/{key} has version {brief(value['version'])}; this program reads version 1"
        raise UnsupportedVersionError(msg)
    try:
        sound = value.get("check") in (None, _check(value))  # listings of other writers may have none
    except RecursionError:
        sound = False
    if not sound:
        msg = f"info/{key} is damaged: its check is another"
        raise MalformedError(msg)
    return value
