"""Settings: files and environment, sizes, remotes, files that are wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from shardfs import budget, config
from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.config import Settings, load, parse_size, remove_remote, set_remote
from shardfs.errors import AlreadyExistsError, MalformedError, RefNotFoundError, ShardfsError, StoreError, UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text("format = 1  # kept\n")
    return path


def _with(file: Path, text: str) -> Settings:
    file.write_text(text)
    return load(file)


def test_defaults(tmp_path: Path, private_home: Path) -> None:
    settings = load(None)
    assert settings == load(tmp_path / "missing.toml") == load(Path(os.devnull))
    assert settings.cache_dir == private_home / "xdg_cache_home/shardfs/chunks"
    assert "@" in settings.author
    assert settings.remotes == {}


def test_no_chain_may_be_longer_than_readers_follow() -> None:
    assert config.MAX_CHAIN_DEPTH == MAX_BASE_DEPTH


def test_the_page_of_settings_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs/reference/settings.md").read_text()
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| `?(.*?)`? \|", page, re.MULTILINE)
    assert [key for key, _, _ in rows] == list(config.KEYS)
    monkeypatch.setattr(budget, "memory_limit", lambda: None)  # on a machine without one the default is the largest
    monkeypatch.setattr(os, "sysconf", lambda _name: 1 << 20)
    before = load(None)
    for _, variable, default in rows[2:]:
        monkeypatch.setenv(variable, default)
    assert load(None) == before
    for _, variable, default in rows:
        monkeypatch.setenv(variable, {"true": "false", "false": "true"}.get(default, "7"))
    after = load(None)
    assert [name for name in config.KEYS.values() if getattr(after, name) == getattr(before, name)] == []


def test_a_file_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="cannot be written"):
        config.set_value(tmp_path / "file" / "config.toml", "cache.size", "1G")


def test_the_store_outweighs_the_user_and_the_environment_both(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = config.user_file()
    user.parent.mkdir(parents=True)
    user.write_text('[user]\nauthor = "User"\n[cache]\nsize = "1K"\nmin_free = "2K"\n[lock]\nwait = 5\n')
    file.write_text('[cache]\nsize = "3K"\n[remote]\ndeadline = 1.5\n')
    monkeypatch.setenv("SHARDFS_CACHE_MIN_FREE", "4K")
    settings = load(file)
    assert (settings.author, settings.cache_size, settings.cache_min_free) == ("User", 3072, 4096)
    assert (settings.lock_wait_s, settings.deadline_s) == (5.0, 1.5)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        (4096, 4096),
        ("1K", 1024),
        ("10GiB", 10 << 30),
        ("1.5 MB", 3 << 19),
        ("2t", 2 << 40),
        (" 5 kib ", 5120),
        ("7B", 7),
        (str(2**50 + 1), 2**50 + 1),
    ],
)
def test_sizes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "K", "-1", -1, "1 X", "1KK", "0x10", "1e3", "nan", True, "9" * 400, "9999999T", "1,5G"]
)
def test_what_is_no_size(text: str | int) -> None:
    with pytest.raises(UsageError, match="not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    "text",
    [
        "[cache]\nsize = -5",
        "[cache]\nsize = [1]",
        "[cache]\ndir = 5",
        "[user]\nauthor = 5",
        "[lock]\nwait = 0",
        "[lock]\nwait = -1",
        '[lock]\nwait = "soon"',
        "[lock]\nwait = nan",
        "[remote]\ndeadline = inf",
        "[remote.deadline]\nurl = 'x'",
        "[cache",
        "x = 1\nx = 2",
        "\0",
        "a = " + "[" * 5000,
    ],
)
def test_values_of_the_wrong_form(file: Path, text: str) -> None:
    with pytest.raises((UsageError, MalformedError)):
        _with(file, text)


def test_files_that_cannot_be_read(file: Path, tmp_path: Path) -> None:
    file.write_bytes(b"\xff")
    with pytest.raises(MalformedError, match="not TOML"):
        load(file)
    with pytest.raises(StoreError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(StoreError, match="cannot be read"):
        config.read(tmp_path / "missing")


def test_sections_of_other_programs_are_left_alone(file: Path) -> None:
    assert (
        _with(
            file, "cache = 3\n[other]\nx = 1\n[remote]\nx = 1\n[remote.bad]\nurl = 5\n['remote'.'a b']\nurl = 'u'\n"
        ).remotes
        == {}
    )


def test_remotes_come_and_go(file: Path) -> None:
    set_remote(file, "origin", "http://host/repo")
    set_remote(file, "back-up", "/mnt/x")
    assert load(file).remotes == {"origin": "http://host/repo", "back-up": "/mnt/x"}
    with pytest.raises(AlreadyExistsError, match="http://host/repo"):
        set_remote(file, "origin", "other")
    remove_remote(file, "origin")
    with pytest.raises(RefNotFoundError):
        remove_remote(file, "origin")
    assert load(file).remotes == {"back-up": "/mnt/x"}
    assert file.read_text().startswith("format = 1  # kept\n")
    assert [p.name for p in file.parent.iterdir()] == ["config.toml"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "-x", ".x", "a b", "é", "x" * 65, "a\n", "deadline"])
def test_names_that_no_remote_has(file: Path, name: str) -> None:
    """`deadline` would take the place of a setting, and the store could not be opened any more."""
    with pytest.raises(UsageError, match="not a remote name"):
        set_remote(file, name, "url")
    assert load(file).remotes == {}


@pytest.mark.parametrize("filters", ['"path=x"', "[3]", "true"])
def test_filters_that_are_no_list_are_told(tmp_path: Path, filters: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'format = 1\n[remote.origin]\nurl = "/srv/x"\nfilter = {filters}\n')
    with pytest.raises(UsageError, match="remote 'origin': not a list"):
        load(file)


@pytest.mark.parametrize("content", [b"[x", b"\xff", None])
def test_a_broken_file_is_not_written_over(file: Path, content: bytes | None) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(ShardfsError):
        set_remote(file, "origin", "url")
    assert (file.read_bytes() if file.exists() else None) == content


def test_a_full_disk_leaves_the_file_as_it_was(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space"):
        set_remote(file, "origin", "url")
    assert file.read_text() == "format = 1  # kept\n"
    assert [p.name for p in file.parent.iterdir()] == ["config.toml"]


def test_remotes_are_asked_in_the_order_that_was_chosen(file: Path) -> None:
    for name in ("origin", "lan", "backup"):
        set_remote(file, name, f"/srv/{name}")
    assert list(load(file).remotes) == ["origin", "lan", "backup"]
    config.prefer_remote(file, "backup")
    config.prefer_remote(file, "lan")
    assert list(load(file).remotes) == ["lan", "backup", "origin"]
    config.rename_remote(file, "lan", "peer")
    assert list(load(file).remotes) == ["peer", "backup", "origin"]
    remove_remote(file, "peer")
    assert (list(load(file).remotes), load(file).remote_order) == (["backup", "origin"], "backup")
    with pytest.raises(RefNotFoundError, match="no remote 'gone'"):
        config.prefer_remote(file, "gone")
    assert "# kept" in file.read_text()


def test_what_is_said_about_a_remote_goes_with_it(file: Path) -> None:
    set_remote(file, "origin", "/srv/a")
    set_remote(file, "other", "/srv/b")
    config.set_filters(file, "origin", ["branch=main", 'path="odd"\\n'])
    config.set_upstream(file, "exp/a b", "origin")
    config.set_upstream(file, "main", "other")
    config.set_remote_url(file, "origin", "/srv/c")
    config.rename_remote(file, "origin", "new")
    found = load(file)
    assert found.remotes == {"new": "/srv/c", "other": "/srv/b"}
    assert found.filters == {"new": ("branch=main", 'path="odd"\\n')}
    assert found.upstreams == {"exp/a b": "new", "main": "other"}
    with pytest.raises(AlreadyExistsError):
        config.rename_remote(file, "new", "other")
    remove_remote(file, "new")
    assert (load(file).upstreams, load(file).filters) == ({"main": "other"}, {})
