"""The schemas of docs/reference/json.md, and whether a document follows one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parents[2] / "docs" / "reference" / "json.md"
_SECTION = re.compile(r"^## `(?P<name>[^`]+)`\n(?P<body>.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_BLOCK = re.compile(r"^```json\n(.*?)^```", re.MULTILINE | re.DOTALL)
_SAME = re.compile(r"\nAs \[([^\]]+)\]")
_ID = re.compile(r"[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z")

_TYPES: Final[dict[str, Callable[[Any], bool]]] = {
    "any": lambda value: True,
    "string": lambda value: isinstance(value, str),
    "path": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: isinstance(value, bool),
    "object": lambda value: isinstance(value, dict),
    "null": lambda value: value is None,
    "id": lambda value: isinstance(value, str) and _ID.fullmatch(value) is not None,
    "time": lambda value: isinstance(value, str) and _TIME.fullmatch(value) is not None,
}


def load() -> dict[str, Any]:
    """Schemas by the heading of their section; "As [other]" stands for that of another section."""
    bodies = {found["name"]: found["body"] for found in _SECTION.finditer(PAGE.read_text("utf-8"))}
    schemas = {name: json.loads(block[1]) for name, body in bodies.items() if (block := _BLOCK.search(body))}
    for name, body in bodies.items():
        if same := _SAME.match(body):
            schemas[name] = schemas[same[1]]
    return schemas


def problems(schema: Any, value: Any, where: str = "$") -> list[str]:
    """How a value breaks a schema."""
    if isinstance(schema, str):
        return [] if any(_is(kind, value) for kind in schema.split(" or ")) else [f"{where}: {value!r} is no {schema}"]
    if isinstance(schema, list):
        if not isinstance(value, list):
            return [f"{where}: {value!r} is no list"]
        return [p for i, item in enumerate(value) for p in problems(schema[0], item, f"{where}[{i}]")]
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    return _object_problems(schema, value, where)


def _object_problems(schema: dict[str, Any], value: dict[str, Any], where: str) -> list[str]:
    keys = {key.removesuffix("?"): key for key in schema}
    found = [f"{where}: {key} is missing" for key in keys.keys() - value.keys()]
    found += [f"{where}: {key} is not documented" for key in value.keys() - keys.keys()]
    for key in keys.keys() & value.keys():
        if not (value[key] is None and keys[key].endswith("?")):
            found += problems(schema[keys[key]], value[key], f"{where}.{key}")
    return found


def _is(kind: str, value: Any) -> bool:
    return value == kind[1:-1] if kind.startswith("'") else _TYPES[kind](value)
