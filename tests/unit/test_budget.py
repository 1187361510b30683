from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardfs import budget

MB = 1 << 20


def groups(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict[str, str]) -> None:
    monkeypatch.setattr(budget, "_GROUP_HOME", folder / "home")
    monkeypatch.setattr(budget, "_GROUPS", folder / "groups")
    (folder / "groups").write_text(lines)
    for name, text in files.items():
        (folder / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "home" / name).write_text(text)


@pytest.mark.parametrize(
    ("lines", "files", "limit"),
    [
        ("0::/a/b\n", {"a/memory.max": "268435456\n", "a/b/memory.max": "max\n"}, 256 * MB),
        ("0::/a/b\n", {"a/memory.max": "268435456\n", "a/b/memory.max": "134217728\n"}, 128 * MB),
        ("4:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "268435456\n"}, 256 * MB),
        ("4:memory:/x\n", {"memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/of/the/host\n", {"memory.max": "268435456\n"}, 256 * MB),
        ("3:cpu:/x\n0::/\n", {}, None),
        ("", {}, None),
    ],
    ids=["parent", "own", "version-1", "version-1-none", "container", "elsewhere", "none"],
)
def test_the_tightest_group_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, files: dict[str, str], limit: int | None
) -> None:
    groups(tmp_path, monkeypatch, lines, files)
    assert budget.memory_limit() == limit


@pytest.mark.parametrize(
    ("machine", "group", "expected"),
    [
        (64 << 30, None, 256 * MB),
        (1 << 30, None, 128 * MB),
        (64 << 30, 256 * MB, 64 * MB),
        (1 << 30, 400 * MB, 100 * MB),
        (64 << 30, 20 * MB, budget.LEAST),
    ],
)
def test_a_share_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: int, group: int | None, expected: int
) -> None:
    groups(tmp_path, monkeypatch, "0::/\n", {"memory.max": str(group or "max")})
    sizes = {"SC_PHYS_PAGES": machine // 4096, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    assert budget.default() == expected
