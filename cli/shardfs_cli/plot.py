"""A picture of what versions cost: SVG without a plotting library, light or dark as the reader's screen is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from shardfs_cli import output

if TYPE_CHECKING:
    from shardfs.maintenance.stats import CommitStats

_WIDTH: Final = 760  # user units, as all sizes here
_HEIGHT: Final = 400
_LEFT: Final = 84
_RIGHT: Final = _WIDTH - 148  # right of it each curve has its name
_TOP: Final = 84
_BOTTOM: Final = _HEIGHT - 72
_MAX_STEPS: Final = 5  # lines of the grid
_LINE: Final = 17  # from one line of text to the next
_CHARACTER: Final = 6.2  # mean width in the size of labels
_FEWEST: Final = 6  # characters of a subject that are worth showing
_NUMBER: Final = 26  # room for the number of a version

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML 1.0 cannot hold

_STYLE: Final = """
text { font: 12px system-ui, sans-serif; fill: currentColor }
.title { font-size: 16px; font-weight: 600 }
.name { font-size: 13px; font-weight: 600 }
.grid { stroke: currentColor; opacity: .18 }
.curve { fill: none; stroke: currentColor; stroke-width: 2 }
.copies.curve { stroke-dasharray: 5 4 }
.dot, .area, .paper { fill: currentColor }
.area { opacity: .14 }
.paper { color: #ffffff }
.plain { color: #59636e }
.title { color: #1f2328 }
.copies { color: #6e7781 }
.stored { color: #0969da }
@media (prefers-color-scheme: dark) {
.paper { color: #0d1117 }
.plain { color: #9198a1 }
.title { color: #f0f6fc }
.copies { color: #9198a1 }
.stored { color: #4493f8 }
}
"""


def stored_bytes(title: str, versions: Sequence[CommitStats]) -> str:
    """An SVG document: the stored bytes of versions, each with all before it, beside those of full copies.

    Args:
        title: of the picture; any text.
        versions: one or more, oldest first.
    """
    copies = list(accumulate(version.logical_bytes for version in versions))
    stored = list(accumulate(version.new_bytes for version in versions))
    axis = _Axis(max(copies[-1], stored[-1]))
    across = _spread(len(versions))
    names = [f"{number} {_legal(version.subject)}" for number, version in enumerate(versions, 1)]
    tips = [
        f"{name}: {output.size(kept)} stored, {output.size(full)} as full copies"
        for name, kept, full in zip(names, stored, copies, strict=True)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
            f"<title>{escape(_legal(title))}</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{_HEIGHT}" rx="8"/>',
            _text(24, 34, title, "title"),
            _text(24, 34 + _LINE + 2, _summary(len(versions), copies[-1], stored[-1])),
            *axis.lines(),
            *_version_labels(across, versions),
            *_curve("copies", across, [axis.at(value) for value in copies], tips),
            *_curve("stored", across, [axis.at(value) for value in stored], tips),
            *_curve_names(axis, copies[-1], stored[-1]),
            "</svg>\n",
        ]
    )


class _Axis:
    """The vertical axis: bytes from 0 to `top`."""

    def __init__(self, highest: int) -> None:
        self._step = _round_step(highest)
        self._top = max(1, -(-highest // self._step)) * self._step
        power = max(power for power in range(len(output.UNITS)) if 1000**power <= self._top)
        self._unit, self._name = 1000**power, output.UNITS[power]

    def at(self, value: int) -> float:
        """Where a number of bytes is."""
        return _BOTTOM - (_BOTTOM - _TOP) * value / self._top

    def lines(self) -> Iterable[str]:
        """The grid with its numbers, and what the horizontal axis is."""
        for value in range(0, self._top + 1, self._step):
            y = self.at(value)
            yield f'<line class="grid plain" x1="{_LEFT}" x2="{_RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield _text(_LEFT - 10, y + 4, f"{value / self._unit:g} {self._name}", anchor="end")
        yield _text((_LEFT + _RIGHT) / 2, _HEIGHT - 16, "version", anchor="middle")


def _round_step(highest: int) -> int:
    """A distance of grid lines that is 1, 2 or 5 times a power of ten."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if highest <= factor * power * _MAX_STEPS:
                return factor * power
        power *= 10


def _spread(count: int) -> list[float]:
    """Where versions are, from left to right; one alone is in the middle."""
    if count == 1:
        return [(_LEFT + _RIGHT) / 2]
    return [_LEFT + (_RIGHT - _LEFT) * number / (count - 1) for number in range(count)]


def _summary(count: int, copies: int, stored: int) -> str:
    smaller = f": {copies / stored:.1f} times smaller" if 0 < stored < copies else ""
    return f"{output.count(count, 'version')}, {output.size(stored)} stored instead of {output.size(copies)}{smaller}"


def _version_labels(across: list[float], versions: Sequence[CommitStats]) -> Iterable[str]:
    """The number of each version, or of every second, fifth, ... that has room; subjects only if all have some."""
    gap = across[1] - across[0] if len(across) > 1 else _RIGHT - _LEFT
    every = _round_step(int(_NUMBER / gap * _MAX_STEPS))
    room = int(gap / _CHARACTER) - 1
    for number, (x, version) in enumerate(zip(across, versions, strict=True), 1):
        if every == 1 or number == 1 or number % every == 0:
            yield _text(x, _BOTTOM + 18, str(number), anchor="middle")
        if room >= _FEWEST:
            yield _text(x, _BOTTOM + 18 + _LINE, _clipped(version.subject, room), anchor="middle")


def _curve(name: str, across: list[float], down: list[float], tips: list[str]) -> Iterable[str]:
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, down, strict=True))
    if name == "stored":
        ends = f"{across[-1]:.1f},{_BOTTOM} {across[0]:.1f},{_BOTTOM}"
        yield f'<polygon class="{name} area" points="{points} {ends}"/>'
    yield f'<polyline class="{name} curve" points="{points}"/>'
    for x, y, tip in zip(across, down, tips, strict=True):
        yield f'<circle class="{name} dot" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(tip)}</title></circle>'


def _curve_names(axis: _Axis, copies: int, stored: int) -> Iterable[str]:
    """Names at the ends of the curves; the upper one moves up when they would touch."""
    low = axis.at(min(copies, stored))
    high = min(axis.at(max(copies, stored)), low - 2 * _LINE - 6)
    rows = [("copies", "full copies", copies), ("stored", "stored", stored)]
    for y, (class_, name, value) in zip((high, low), sorted(rows, key=lambda row: -row[2]), strict=True):
        yield _text(_RIGHT + 14, y, name, f"{class_} name")
        yield _text(_RIGHT + 14, y + _LINE, output.size(value), class_)


def _text(x: float, y: float, text: str, class_: str = "plain", anchor: str = "start") -> str:
    place = f' text-anchor="{anchor}"' if anchor != "start" else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{class_}"{place}>{escape(_legal(text))}</text>'


def _clipped(text: str, room: int) -> str:
    return text if len(text) <= room else f"{text[: room - 1].rstrip()}…"


def _legal(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", text)
