"""What was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.measuring import MB, median, table, with_ratio
from tests.benchmarks.mounts.peers import Cold
from tests.benchmarks.mounts.reading import Results, State
from tests.benchmarks.tools import Tool


def speeds(results: Results, tools: Sequence[type[Tool]], state: State) -> str:
    """A row per tool, a column per way to read."""
    head = [state, *(f"{row.title}, {row.unit}" for row in results.rows)]
    lines = []
    for tool in tools:
        cells = []
        for row in results.rows:
            value, base = (results.value(name, row, state) for name in (tool.name, Cold.name))
            digits = 0 if value is None or value >= 100 else 1
            cells.append("-" if value is None else with_ratio(value, base, digits))
        lines.append([tool.name, *cells])
    return table(head, lines)


def costs(results: Results, tools: Sequence[type[Tool]]) -> str:
    """Bytes stored, seconds until a mount is ready, memory of its daemon."""
    head = ["", "stored, MB", "mount ready, s", "daemon idle, MB", "daemon's peak, MB"]
    lines = []
    for tool in tools:
        idle, peak = median(results.idle[tool.name]) / MB, results.peak[tool.name] / MB
        memory = [f"{idle:.0f}", f"{peak:.0f}"] if peak else ["-", "-"]
        ready = f"{median(results.ready[tool.name]):.2f}" if tool.mount else "-"
        lines.append([tool.name, f"{results.stored[tool.name] / MB:.1f}", ready, *memory])
    return table(head, lines)
