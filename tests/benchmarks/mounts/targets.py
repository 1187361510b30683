"""What the mount shall reach, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tests.benchmarks.measuring import MB, median, table
from tests.benchmarks.mounts import peers, reading
from tests.benchmarks.mounts.listing import COLUMNS, Times
from tests.benchmarks.mounts.reading import Results, Row, State
from tests.benchmarks.mounts.scale import VERSIONS_FIRST
from tests.benchmarks.tools import Tool

IDLE_MB = 200


class Check(NamedTuple):
    """One target."""

    what: str
    target: str
    measured: str
    met: bool


def _ratio(results: Results, row: Row, state: State, mine: type[Tool], others: tuple[type[Tool], ...]) -> float | None:
    """This tool's value divided by the best of the others; None when one side was not measured."""
    base = [results.value(other.name, row, state) for other in others]
    known = [value for value in base if value is not None]
    value = results.value(mine.name, row, state)
    best = min if row.unit == "ms" else max
    return None if value is None or not known else value / best(known)


def of_reads(results: Results) -> Iterator[Check]:
    """Targets of one checkpoint."""
    fuse, compressed, plain = peers.FUSE, peers.COMPRESSED_FUSE, (peers.Plain,)
    first, faults = reading.SEQUENTIAL, reading.FAULTS
    least = (
        ("first read, to the best compressed FUSE peer", first, "cold", peers.Cold, compressed, 2.0),
        ("second open, to the best FUSE peer", first, "hot", peers.Cold, fuse, 1.0),
        ("mmap faults, to the best FUSE peer", faults, "cold", peers.Cold, fuse, 1.0),
        ("mmap faults again, to the best FUSE peer", faults, "hot", peers.Cold, fuse, 1.0),
        ("first read, warm, to the plain file", first, "cold", peers.Warm, plain, 0.9),
        ("second open, warm, to the plain file", first, "hot", peers.Warm, plain, 0.7),
    )
    most = tuple(
        (f"{row.title}, {name}, {state}, to the plain file", row, state, tool, plain, limit)
        for row in (reading.TORCH_MAPPED, reading.LOAD_FILE)
        if row in results.rows
        for name, tool in (("first seen", peers.Cold), ("warm", peers.Warm))
        for state, limit in (("cold", 1.5), ("hot", 1.1))
    )
    for sign, cases in ((">=", least), ("<=", most)):
        for what, row, state, tool, others, limit in cases:
            ratio = _ratio(results, row, state, tool, others)  # type: ignore[arg-type]
            if ratio is not None:
                met = ratio >= limit if sign == ">=" else ratio <= limit
                yield Check(f"{results.subject.title}: {what}", f"{sign} {limit}x", f"{ratio:.2f}x", met)


def of_lists(times: Times) -> Iterator[Check]:
    """Targets of listings."""
    seconds = times.get((peers.Cold.name, COLUMNS[3]))
    if seconds:
        yield _below(f"`ls -l` of {COLUMNS[2].partition(',')[0]}, again", median(seconds), 0.2)


def of_scale(found: Mapping[str, Mapping[str, float]]) -> Iterator[Check]:
    """Targets of large repositories."""
    for title, seen in found.items():
        yield _below(f"mount ready with {title}", seen["ready"], 0.5)
        yield Check(
            f"daemon idle with {title}", f"<= {IDLE_MB} MB", f"{seen['idle'] / MB:.0f} MB", seen["idle"] <= IDLE_MB * MB
        )
        if VERSIONS_FIRST in seen:
            yield _below(f"`ls versions` with {title}", seen[VERSIONS_FIRST], 1.0)


def _below(what: str, seconds: float, limit: float) -> Check:
    return Check(what, f"< {limit:.1f} s", f"{seconds:.2f} s", seconds < limit)


def report(checks: list[Check]) -> str:
    """A table."""
    return table(
        ["", "target", "measured", "met"], [[*check[:3], "yes" if check.met else "**no**"] for check in checks]
    )
