"""How long a transfer will take, for dry runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from shardfs_cli import output

if TYPE_CHECKING:
    from shardfs.wiring import Expectation


def in_words(expected: Expectation | None, last: str) -> str:
    """What follows a number of bytes: ", about 2 min at 11.0 MB/s, the speed of the last push"; nothing when unknown.

    Args:
        expected: what is known.
        last: what `last` transfer its speed is that of.
    """
    if expected is None or not expected.seconds:
        return ""
    span, speed = output.duration(math.ceil(expected.seconds)), output.size(expected.bytes_per_s)
    return f", about {span} at {speed}/s, {'the limit' if expected.is_limit else f'the speed of the last {last}'}"


def as_json(expected: Expectation | None) -> dict[str, Any]:
    """The same as members of a document."""
    if expected is None:
        return {"eta_s": None, "bytes_per_s": None}
    return {"eta_s": round(expected.seconds, 1), "bytes_per_s": expected.bytes_per_s}
