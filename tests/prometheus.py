"""A parser of Prometheus' text format 0.0.4 that accepts nothing but what the format's page allows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

_NAME: Final = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_HELP: Final = re.compile(rf"# HELP ({_NAME}) ((?:[^\\\n]|\\\\|\\n)+)")
_TYPE: Final = re.compile(rf"# TYPE ({_NAME}) (counter|gauge|untyped|histogram)")
_LABEL: Final = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\n|\\")*)"(?:,|$)')
_SAMPLE: Final = re.compile(rf'({_NAME})(?:\{{((?:[^"}}]|"(?:[^"\\]|\\.)*")*)\}})? (\S+)')
_HISTOGRAM: Final = ("_bucket", "_sum", "_count")
_ESCAPES: Final = {"\\\\": "\\", "\\n": "\n", '\\"': '"'}

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric: what it is, and its samples by labels; a suffix of its name is a label without a name."""

    help: str
    kind: str = ""
    samples: dict[Labels, float] = field(default_factory=dict)


def parse(page: str) -> dict[str, Family]:
    """The metrics of a page by name.

    Raises:
        AssertionError: the page breaks the format: each metric has one HELP, then one TYPE, then its samples.
    """
    assert page.endswith("\n")
    found: dict[str, Family] = {}
    current = ""
    for line in page[:-1].split("\n"):
        if helped := _HELP.fullmatch(line):
            current = helped[1]
            assert current not in found, f"{current} comes twice"
            found[current] = Family(_plain(helped[2]))
        elif typed := _TYPE.fullmatch(line):
            assert typed[1] == current
            assert not found[current].kind
            found[current].kind = typed[2]
        else:
            sample = _SAMPLE.fullmatch(line)
            assert sample is not None, f"no sample: {line!r}"
            kind = found[current].kind
            assert kind
            suffix = sample[1].removeprefix(current)
            assert suffix in (_HISTOGRAM if kind == "histogram" else ("",)), f"not of {current}: {line!r}"
            labels = (*((("", suffix),) if suffix else ()), *_labels(sample[2] or ""))
            assert labels not in found[current].samples, f"comes twice: {line!r}"
            found[current].samples[labels] = float(sample[3])
    assert all(name.endswith("_total") == (family.kind == "counter") for name, family in found.items())
    return found


def _labels(text: str) -> Labels:
    pairs = _LABEL.findall(text)
    assert "".join(f'{name}="{value}",' for name, value in pairs).rstrip(",") == text
    return tuple((name, _plain(value)) for name, value in pairs)


def _plain(text: str) -> str:
    return re.sub(r"\\.", lambda found: _ESCAPES[found[0]], text)
