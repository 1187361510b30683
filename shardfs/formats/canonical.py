"""Canonical JSON (RFC 8785): one value, one byte string. Spec: docs/design/format/objects.md, "Canonical bytes"."""

from __future__ import annotations

import json
from json.encoder import encode_basestring
from typing import Any, Final

import rfc8785

from shardfs.errors import MalformedError, UnsupportedVersionError

MAX_OBJECT_SIZE: Final = 64 << 20  # bytes; a directory of about 400 000 files


def dumps(value: dict[str, Any]) -> bytes:
    """The canonical bytes of a JSON object.

    Raises:
        MalformedError: a value that RFC 8785 cannot express (integers beyond 2**53, NaN, lone surrogates) or more
            than `MAX_OBJECT_SIZE` bytes.
    """
    try:
        data = bytes(rfc8785.dumps(value))
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        msg = f"value has no canonical JSON form: {error}"
        raise MalformedError(msg) from error
    return checked_size(data)


def string(text: str) -> str:
    """A text as RFC 8785 writes it, quotes included. Lone surrogates stay, for `encode` to refuse."""
    return encode_basestring(text)


def encode(text: str) -> bytes:
    """The bytes of JSON that was written by hand.

    Raises:
        MalformedError: lone surrogates.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        msg = f"value has no canonical JSON form: {error}"
        raise MalformedError(msg) from error


def checked_size(data: bytes) -> bytes:
    """Canonical bytes, if they are not too many for one object.

    Raises:
        MalformedError: more than `MAX_OBJECT_SIZE`.
    """
    if len(data) > MAX_OBJECT_SIZE:
        msg = f"object of {len(data)} bytes is larger than {MAX_OBJECT_SIZE}; split the directory"
        raise MalformedError(msg)
    return data


def loads(data: bytes, kind: str) -> dict[str, Any]:
    """The JSON object in `data`, whose "type" must be `kind` and whose "version" must be 1.

    Canonicity is not checked here: each object type rebuilds its bytes and compares.

    Raises:
        MalformedError: not UTF-8 JSON, not an object, another type. UnsupportedVersionError: another version.
    """
    if len(data) > MAX_OBJECT_SIZE:
        msg = f"{kind} of {len(data)} bytes is larger than {MAX_OBJECT_SIZE}"
        raise MalformedError(msg)
    try:
        value = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        msg = f"{kind} is not JSON: {error}"
        raise MalformedError(msg) from error
    if not isinstance(value, dict) or value.get("type") != kind:
        msg = f"expected an object of type {kind!r}"
        raise MalformedError(msg)
    if integer(value.get("version"), f"{kind} version") != 1:
        msg = f"{kind} of version {value['version']}; this program reads version 1"
        raise UnsupportedVersionError(msg)
    return value


def brief(value: object) -> str:
    """A foreign JSON value for an error message: short, and never deeper than the stack of whoever reports it."""
    return f"a {type(value).__name__}" if isinstance(value, dict | list) else repr(value)[:80]


def check_keys(value: dict[str, Any], kind: str, allowed: frozenset[str]) -> None:
    """Refuse unknown members: version 1 objects are closed.

    Raises:
        MalformedError: a member that is not in `allowed`.
    """
    unknown = value.keys() - allowed
    if unknown:
        msg = f"{kind} has unknown members: {', '.join(sorted(map(repr, unknown)))[:200]}"
        raise MalformedError(msg)


def integer(value: object, what: str, low: int = 0, high: int = 2**53 - 1) -> int:
    """`value` as an integer in [low, high].

    Raises:
        MalformedError: another type (also bool) or out of range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        msg = f"{what}: expected an integer in [{low}, {high}], got {brief(value)}"
        raise MalformedError(msg)
    return value
