"""A package that adds a kind of remote, as pip would install it."""

from __future__ import annotations

from pathlib import Path

import pytest

from shardfs.config import Settings
from shardfs.errors import UsageError
from shardfs.remotes.registry import check_url, open_remote
from tests.stores import MAIN, make_store

MODULE = """
from pathlib import Path
from shardfs.remotes.directory import DirectoryRemote

def open_shelf(url, name, settings):
    return DirectoryRemote(Path("{root}") / url.removeprefix("shelf://"), name=name)
"""


def install(folder: Path, dist: str, entry: str, module: str = "") -> None:
    """Put a package with one entry point below a folder of the search path."""
    info = folder / f"{dist}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {dist}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[shardfs.remotes]\n{entry}\n")
    if module:
        (folder / f"{dist}.py").write_text(module)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def test_a_scheme_of_somebody_else(site: Path, tmp_path: Path) -> None:
    install(site, "shelfremote", "shelf = shelfremote:open_shelf", MODULE.format(root=tmp_path))
    store, commits = make_store(tmp_path / "models")
    store.close()
    remote = open_remote("shelf://models", name="wall")
    assert remote.refs().refs == {MAIN: commits[-1]}
    assert remote.name == "wall"
    assert remote.url == str(tmp_path / "models")


def test_settings_count_for_it(site: Path, tmp_path: Path) -> None:
    install(site, "shelfoffline", "shelf = shelfoffline:open_shelf", MODULE.format(root=tmp_path))
    remote = open_remote("shelf://models", settings=Settings("A <a@b>", tmp_path, offline=True))
    with pytest.raises(Exception, match="offline"):
        remote.refs()


def test_what_is_built_in_cannot_be_taken_over(site: Path, tmp_path: Path) -> None:
    install(site, "takeover", "file = takeover:open_shelf\nhttp = takeover:open_shelf")
    assert type(open_remote(str(tmp_path)).refs).__name__ == "method"
    check_url("http://127.0.0.1/demo")


def test_two_packages_for_one_scheme(site: Path) -> None:
    install(site, "one", "twice = one:a")
    install(site, "two", "twice = two:b")
    with pytest.raises(UsageError, match="more than one installed package opens twice:// remotes: one:a, two:b"):
        check_url("twice://x")


@pytest.mark.parametrize("target", ["nomodule_at_all:open", "json:no_such_name"])
def test_a_package_that_is_broken(site: Path, target: str) -> None:
    install(site, "broken", f"broken = {target}")
    with pytest.raises(UsageError, match="opens broken:// remotes, cannot be imported"):
        check_url("broken://x")


def test_a_package_that_fails(site: Path) -> None:
    install(site, "failing", "failing = failing:open_it", "def open_it(url): pass\n")
    with pytest.raises(UsageError, match="failing:open_it, which opens failing:// remotes, failed: TypeError: open_it"):
        check_url("failing://x")


def test_nobody_opens_it() -> None:
    with pytest.raises(UsageError, match="remotes of kind nobody:// are not supported"):
        check_url("nobody://x")
