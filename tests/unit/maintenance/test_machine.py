"""What the doctor says about a machine: this one, and ones that are made to look worse."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from shardfs import budget, config
from shardfs.codecs import kernels
from shardfs.config import Settings
from shardfs.formats.ids import CommitId
from shardfs.maintenance import machine
from shardfs.maintenance.findings import Finding
from shardfs.store import cache_check
from shardfs.store.cache import Cache
from shardfs.store.pins import Pin, Pins


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a cache of its own."""
    return replace(config.load(None), cache_dir=tmp_path / "cache", cache_min_free=0)


def told(settings: Settings, words: str) -> Finding:
    """The one finding with these words; all of what needs mending says how."""
    found = machine.diagnose(settings)
    assert all(f.fix for f in found if f.level in ("warning", "error"))
    [one] = [f for f in found if words in f.what]
    return one


def fill(settings: Settings, count: int = 8) -> None:
    """Put payloads into the cache."""
    cache = Cache.open(settings.cache_dir, limit_bytes=settings.cache_size, free_floor_bytes=0)
    for number in range(count):
        cache.put(bytes([number]) * 32, 0, 1 << 20, (), os.urandom(1 << 20))
    cache.close()


def test_a_good_machine(settings: Settings) -> None:
    assert told(settings, "float codecs").what.endswith(f"the {kernels.active.name} kernels")
    fill(settings)
    assert told(settings, f"cache {settings.cache_dir}").level == "ok"
    assert list(machine.fix(settings)) == []
    assert cache_check.disk_bytes(settings.cache_dir) > 8 << 20


def test_pins_that_do_not_hold_what_they_should(settings: Settings, tmp_path: Path) -> None:
    pins = Pins(settings.cache_dir)
    here = Pin(str(tmp_path), "v1", "weights", CommitId(bytes(32)), {bytes(32): 3 << 20})
    pins.add(here)
    pins.add(replace(here, repository="/nowhere"))
    assert told(settings, "of it are not here").fix == "shardfs pin v1:weights"
    assert told(settings, "/nowhere, which is gone").level == "note"
    assert told(settings, "3 MiB of plain files are pinned").level == "ok"
    (settings.cache_dir / "pins" / "x.json").mkdir()
    assert told(settings, "pins cannot be read").level == "warning"


@pytest.mark.parametrize(
    ("device", "words"), [(lambda _: None, "does not exist"), (lambda path: path.mkdir(), "cannot be opened")]
)
def test_fuse_that_is_not_there(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: Callable[[Path], None],
    words: str,
) -> None:
    monkeypatch.setattr(machine, "_DEVICE", tmp_path / "fuse")
    device(tmp_path / "fuse")
    assert told(settings, words).level == "warning"
    assert not [f for f in machine.diagnose(settings) if "mounts can be made" in f.what]


def test_who_is_not_root_needs_the_helper_and_its_permission(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(machine, "_HELPER_SETTINGS", tmp_path / "fuse.conf")
    assert told(settings, "fusermount3 is not installed").level == "warning"
    assert "user_allow_other" in told(settings, "--allow-other").fix
    (tmp_path / "fuse.conf").write_text("# comment\n user_allow_other # here\n")
    assert not [f for f in machine.diagnose(settings) if "--allow-other" in f.what]


def test_small_requests_and_few_descriptors(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "limit").write_text("32\n")
    monkeypatch.setattr(machine, "_MAX_PAGES", tmp_path / "limit")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    assert told(settings, "at most 128 KiB").level == "note"
    assert "ulimit" in told(settings, "may open only 256 files").fix


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/a/b\n", {"a/memory.max": "1073741824", "a/b/memory.max": "max"}),
        ("4:cpu,memory:/x\n0::/\n", {"memory/x/memory.limit_in_bytes": "1073741824"}),
        ("0::/of/the/host\n", {"memory.max": "1073741824"}),
    ],
    ids=["v2", "v1", "container"],
)
def test_a_budget_larger_than_the_control_group_allows(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, files: dict[str, str]
) -> None:
    monkeypatch.setattr(budget, "_GROUP_HOME", tmp_path / "home")
    monkeypatch.setattr(budget, "_GROUPS", tmp_path / "groups")
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        (tmp_path / "home" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "home" / name).write_text(text)
    assert told(settings, "memory.budget").level == "ok"
    found = told(replace(settings, memory_budget=600 << 20), "memory.budget")
    assert (found.level, found.fix) == ("warning", "shardfs config set memory.budget 256M")


def test_a_damaged_cache_is_told_and_emptied(settings: Settings) -> None:
    fill(settings)
    [index] = settings.cache_dir.rglob("cache.sqlite")
    data = bytearray(index.read_bytes())
    data[100:] = b"\xff" * (len(data) - 100)
    index.write_bytes(data)
    assert told(settings, "is damaged").fix == "shardfs doctor --fix"
    assert [f.level for f in machine.fix(settings)] == ["ok"]
    assert cache_check.problem(settings.cache_dir) is None
    assert cache_check.disk_bytes(settings.cache_dir) < 1 << 20
    fill(settings)
    assert told(settings, f"cache {settings.cache_dir}").level == "ok"


def test_a_cache_over_its_limit_is_told_and_emptied(settings: Settings) -> None:
    fill(settings)
    small = replace(settings, cache_size=1 << 20)
    assert "may take" in told(small, "takes").what
    assert [f.level for f in machine.fix(small)] == ["ok"]
    assert cache_check.disk_bytes(settings.cache_dir) < 1 << 20


def test_a_disk_that_is_too_small_for_the_cache(settings: Settings) -> None:
    total = shutil.disk_usage("/").total
    assert told(replace(settings, cache_min_free=2 * total), "keeps nothing new").level == "warning"
    assert told(replace(settings, cache_size=4 * total), "can grow by").level == "note"


def test_a_cache_that_cannot_be_written(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    assert told(settings, "cannot be written").fix == "set SHARDFS_CACHE_DIR"
