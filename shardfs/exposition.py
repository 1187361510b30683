"""Metrics as text for Prometheus, version 0.0.4 of its exposition format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]


class Sample(NamedTuple):
    """One number of a metric.

    Attributes:
        value: the number.
        labels: names and values that tell it from the other numbers of the metric.
        suffix: what follows the name of the metric, as `_bucket` of a histogram.
    """

    value: float
    labels: Labels = ()
    suffix: str = ""


class Metric(NamedTuple):
    """What Prometheus sees as one metric.

    Attributes:
        name: `shardfs_...`; that of a counter ends with `_total`.
        kind: "counter", "gauge" or "histogram".
        help: what it means, on one line.
        samples: its numbers.
    """

    name: str
    kind: str
    help: str
    samples: Sequence[Sample]


def page(metrics: Iterable[Metric]) -> str:
    """The page that Prometheus reads."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {_escaped(metric.help)}", f"# TYPE {metric.name} {metric.kind}"]
        for sample in metric.samples:
            labels = ",".join(f'{key}="{_quoted(value)}"' for key, value in sample.labels)
            braced = f"{{{labels}}}" if labels else ""
            lines.append(f"{metric.name}{sample.suffix}{braced} {sample.value!r}")
    return "\n".join(lines) + "\n"


def _quoted(value: str) -> str:
    return _escaped(value).replace('"', '\\"')


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")
