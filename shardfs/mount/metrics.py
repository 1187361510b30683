"""The counters of a mount for Prometheus.

The names come from the parts: field `remote_bytes` of part `reader` is `shardfs_reader_remote_bytes_total`. What a
field means is what the docstring of its named tuple says of it. A field that is said to be something "now" is a gauge,
any other with a description a counter, and numbers without a description are gauges.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from shardfs.exposition import Metric, Sample, page

_PREFIX: Final = "shardfs"
_LABELS: Final[Mapping[str, str]] = {"requests": "operation", "errors": "errno"}  # of fields with a number for each key
_ATTRIBUTE: Final = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)
_NOW: Final = re.compile(r"\bnow\b")
_UNFIT: Final = re.compile(r"[^a-zA-Z0-9_]")


def text(snapshot: Mapping[str, Any], info: Mapping[str, str]) -> str:
    """The page that Prometheus reads.

    Args:
        snapshot: counters by part, as of `Stats.snapshot`; what is no number is left out.
        info: what the mount is, as labels of `shardfs_mount_info`.
    """
    mount = Metric(f"{_PREFIX}_mount_info", "gauge", "What is mounted where.", [Sample(1, tuple(info.items()))])
    return page([mount, *(metric for part, value in snapshot.items() for metric in _metrics(part, value))])


def _metrics(part: str, value: Any) -> Iterator[Metric]:
    if _is_number(value):
        yield Metric(_name(part), "gauge", f"{part} of the mount", [Sample(value)])
        return
    known = _descriptions(inspect.getdoc(value) or "") if hasattr(value, "_asdict") else {}
    fields = value._asdict() if hasattr(value, "_asdict") else value if isinstance(value, Mapping) else {}
    for field, found in fields.items():
        values = _values(field, found)
        if values is None:
            continue
        described = known.get(field)
        counts = described is not None and not _NOW.search(described)
        name = _name(part, field) + ("_total" if counts else "")
        yield Metric(name, "counter" if counts else "gauge", described or f"{part}: {field}", values)


def _values(field: str, found: Any) -> list[Sample] | None:
    if _is_number(found):
        return [Sample(found)]
    if isinstance(found, Mapping):
        label = _LABELS.get(field, "name")
        return [Sample(number, ((label, str(key)),)) for key, number in found.items() if _is_number(number)]
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@lru_cache
def _descriptions(docstring: str) -> dict[str, str]:
    """What the docstring of a named tuple says of each field."""
    _, _, attributes = docstring.partition("Attributes:\n")
    return {name: " ".join(said.split()) for name, said in _ATTRIBUTE.findall(attributes)}


def _name(*words: str) -> str:
    name = _UNFIT.sub("_", "_".join((_PREFIX, *words)))
    return f"{name[:-2]}_seconds" if name.endswith("_s") else name
