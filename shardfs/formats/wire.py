"""Messages between the HTTP client and the HTTP server, as bytes. Spec: docs/reference/http-api.md."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

from shardfs.errors import MalformedError
from shardfs.formats.ids import ID_SIZE, CommitId, from_hex

MAX_HAS_IDS: Final = 65_536
MAX_ERROR_TEXT: Final = 400  # characters of a remote's error message that are worth showing

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.ASCII)
_REST_OF = re.compile(r"bytes (?:(\d{1,19})-(\d{1,19})|\*)/(\d{1,19})", re.ASCII)
_ENTITY_TAG = re.compile(r'"([0-9a-f]{64})"')


def ids_to_bytes(ids: Sequence[bytes]) -> bytes:
    """The body of a `has` request."""
    return b"".join(ids)


def ids_from_bytes(data: bytes) -> list[bytes]:
    """The ids of a `has` request.

    Raises:
        MalformedError: not a whole number of ids, or more than `MAX_HAS_IDS`.
    """
    if len(data) % ID_SIZE or len(data) > MAX_HAS_IDS * ID_SIZE:
        msg = f"expected at most {MAX_HAS_IDS} ids of {ID_SIZE} bytes, got {len(data)} bytes"
        raise MalformedError(msg)
    return [data[i : i + ID_SIZE] for i in range(0, len(data), ID_SIZE)]


def flags_to_bytes(flags: Iterable[bool]) -> bytes:
    """The answer to a `has` request: one byte per id, 1 for present."""
    return bytes(flags)


def flags_from_bytes(data: bytes, count: int) -> list[bool]:
    """The flags of an answer about `count` ids.

    Raises:
        MalformedError: another number of bytes, or bytes other than 0 and 1.
    """
    if len(data) != count or data.strip(b"\0\1"):
        msg = f"expected {count} bytes of 0 or 1"
        raise MalformedError(msg)
    return [flag == 1 for flag in data]


def parse_content_range(text: str) -> tuple[int, int, int | None]:
    """Offset, length and total size (None when not told) of a Content-Range header.

    Raises:
        MalformedError: another unit or form, or an end before the start.
    """
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is None or int(found[2]) < int(found[1]):
        msg = f"Content-Range {text[:80]!r} has an unknown form"
        raise MalformedError(msg)
    total = None if found[3] == "*" else int(found[3])
    return int(found[1]), int(found[2]) - int(found[1]) + 1, total


def rest_of(offset: int, size: int) -> str:
    """The Content-Range header of a request whose body is a file of `size` bytes from `offset` to its end."""
    return f"bytes {offset}-{size - 1}/{size}" if offset < size else f"bytes */{size}"


def parse_rest_of(text: str) -> tuple[int, int]:
    """Offset and size of `rest_of`.

    Raises:
        MalformedError: another unit or form, or a range that does not reach the end.
    """
    found = _REST_OF.fullmatch(text.strip())
    size = int(found[3]) if found else 0
    offset, last = (int(found[1]), int(found[2])) if found and found[1] else (size, size - 1)
    if found is None or last != size - 1 or (found[1] and offset > last):
        msg = f"Content-Range {text[:80]!r} is not the rest of a pack"
        raise MalformedError(msg)
    return offset, size


def entity_tag(commit: CommitId) -> str:
    """The entity tag of a ref that names a commit."""
    return f'"{commit.hex()}"'


def parse_entity_tag(text: str) -> CommitId:
    """The commit of a ref's entity tag.

    Raises:
        MalformedError: a list, a weak tag, `*` or anything else but one quoted id.
    """
    found = _ENTITY_TAG.fullmatch(text.strip())
    if found is None:
        msg = f'expected "<64 hexadecimal digits>" with its quotes, got {text[:80]!r}'
        raise MalformedError(msg)
    return CommitId(from_hex(found[1], "entity tag"))


def error_to_bytes(message: str) -> bytes:
    """The body of an error answer."""
    return json.dumps({"error": message}).encode() + b"\n"


def error_from_bytes(data: bytes) -> str | None:
    """One printable line of an error answer; None when the body is something else."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    text = value.get("error") if isinstance(value, dict) else None
    if not isinstance(text, str):
        return None
    return "".join(c if c.isprintable() else " " for c in text[:MAX_ERROR_TEXT])


def current_to_bytes(message: str, current: bytes | None) -> bytes:
    """The body of the answer to a lost compare-and-swap: where the ref is now."""
    value = {"error": message, "current": None if current is None else current.hex()}
    return json.dumps(value).encode() + b"\n"


def is_receipt(data: bytes, **said: str | None) -> bool:
    """Whether an answer says that a change was made: a JSON object with these values.

    The status alone does not: a portal on the way answers everything with 200 and a page.
    """
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and all(key in value and value[key] == expected for key, expected in said.items())


def current_from_bytes(data: bytes) -> CommitId | None:
    """Where a ref is, by the answer to a lost compare-and-swap; None when it does not exist.

    Raises:
        MalformedError: the body says neither.
    """
    try:
        value = json.loads(data)
        current = value["current"]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        msg = "answer to a lost compare-and-swap does not say where the ref is"
        raise MalformedError(msg) from error
    return None if current is None else CommitId(from_hex(current, "current"))
