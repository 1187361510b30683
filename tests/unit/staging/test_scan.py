from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shardfs.errors import MalformedError, PathNotFoundError, StoreError, UnsupportedFileError, UsageError
from shardfs.staging import scan as scan_module
from shardfs.staging.scan import Scanner


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    monkeypatch.chdir(made)
    return made


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def found(root: Path, *paths: str, ignored: bool = False) -> list[str]:
    folders = Scanner(root, ignored=ignored).scan([Path(p) for p in paths])
    return [os.fsdecode(path) for folder in folders for path, _ in folder.found()]


def test_everything_in_order(root: Path) -> None:
    make(root, "b", "a", "d/z", "d/y", "d/e/x", "c/w")
    assert found(root) == ["a", "b", "c/w", "d/y", "d/z", "d/e/x"]
    assert found(root) == found(root, ".")


def test_stats_come_with_it(root: Path) -> None:
    make(root, "a")
    (folder,) = Scanner(root).scan()
    ((path, status),) = folder.found()
    assert path == b"a"
    assert (status.st_size, status.st_ino) == (1, (root / "a").stat().st_ino)


def test_an_empty_root_has_nothing(root: Path) -> None:
    assert found(root) == []


def test_directories_come_before_what_is_in_them(root: Path) -> None:
    make(root, "d/e/x", "d/e/w", "y")
    (root / "empty").mkdir()
    got = list(Scanner(root).scan())
    assert [(folder.path, folder.names) for folder in got] == [
        (b"", ["y"]),
        (b"d", []),
        (b"d/e", ["w", "x"]),
        (b"empty", []),
    ]
    assert all(folder.whole for folder in got)


def test_a_folder_of_which_a_part_was_asked_for_is_not_whole(root: Path) -> None:
    make(root, "d/a1", "d/a2", "d/b", "e/a1")
    for paths, expected in (
        (["d/a1"], [(b"d", ["a1"], False)]),
        (["d/a*"], [(b"d", ["a1", "a2"], False)]),
        (["*/a1"], [(b"d", ["a1"], False), (b"e", ["a1"], True)]),
        (["d/a2", "d"], [(b"d", ["a2"], False), (b"d", ["a1", "b"], False)]),
        (["e", "d"], [(b"e", ["a1"], True), (b"d", ["a1", "a2", "b"], True)]),
    ):
        got = Scanner(root).scan([Path(path) for path in paths])
        assert [(folder.path, folder.names, folder.whole) for folder in got] == expected


def test_own_and_git_directories_are_left_out(root: Path) -> None:
    make(root, ".shardfs/config.toml", ".git/config", "sub/.git", "sub/.shardfs/x", "sub/a", ".hidden")
    assert found(root) == [".hidden", "sub/a"]
    assert found(root, ignored=True) == [".hidden", "sub/a"]
    with pytest.raises(UsageError, match="part of a repository"):
        found(root, ".shardfs/config.toml")


def test_links_are_found_and_not_followed(root: Path) -> None:
    make(root, "d/a", "outside/b")
    (root / "to_dir").symlink_to("d")
    (root / "to_file").symlink_to("d/a")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to(".")
    got = {path: status for folder in Scanner(root).scan() for path, status in folder.found()}
    assert list(got) == [b"dangling", b"loop", b"to_dir", b"to_file", b"d/a", b"outside/b"]
    assert stat.S_ISLNK(got[b"to_dir"].st_mode)
    assert found(root, "to_dir") == ["to_dir"]


def test_what_is_behind_a_link_is_itself(root: Path) -> None:
    make(root, "d/a")
    (root / "to_dir").symlink_to("d")
    (root.parent / "alias").symlink_to(root)
    assert found(root, "to_dir/a") == ["d/a"]
    assert found(root, str(root.parent / "alias/d")) == ["d/a"]
    assert found(root.parent / "alias", "d") == ["d/a"]


def test_paths_are_relative_to_the_current_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, "d/a", "d/b", "c")
    monkeypatch.chdir(root / "d")
    assert found(root, "a") == ["d/a"]
    assert found(root, "../c") == ["c"]
    assert found(root, "*") == ["d/a", "d/b"]
    assert found(root, "..") == ["c", "d/a", "d/b"]


def test_overlapping_paths_give_each_file_once(root: Path) -> None:
    make(root, "d/a", "d/b", "c")
    assert found(root, "d/b", "d", "d/*", "c", "c") == ["d/b", "d/a", "c"]


def test_patterns(root: Path) -> None:
    make(root, "m/1.pt", "m/2.pt", "m/3.bin", "m/deep/4.pt", "n/5.pt", "exp1/a", "exp2/b/c")
    assert found(root, "m/*.pt") == ["m/1.pt", "m/2.pt"]
    assert found(root, "**/*.pt") == ["m/1.pt", "m/2.pt", "m/deep/4.pt", "n/5.pt"]
    assert found(root, "exp?") == ["exp1/a", "exp2/b/c"]
    assert found(root, "m/[12].pt") == ["m/1.pt", "m/2.pt"]
    for missing in ("*.none", "m/*.none", "nowhere/*.pt"):
        with pytest.raises(PathNotFoundError):
            found(root, missing)


def test_a_name_that_looks_like_a_pattern_is_a_name_first(root: Path) -> None:
    make(root, "[ab]", "a", "!x", "#y")
    assert found(root, "[ab]") == ["[ab]"]
    assert found(root, "!x", "#y") == ["!x", "#y"]
    assert found(root, "!?") == ["!x"]


def test_a_broken_pattern(root: Path) -> None:
    with pytest.raises(UsageError, match="no pattern"):
        found(root, "[z-a]*")


def test_missing_and_outside(root: Path) -> None:
    with pytest.raises(PathNotFoundError, match="nothing does not exist"):
        found(root, "nothing")
    with pytest.raises(UsageError, match="outside"):
        found(root, "..")
    make(root.parent, "project2/a")
    with pytest.raises(UsageError, match="outside"):
        found(root, "../project2/a")


def test_ignore_files(root: Path) -> None:
    make(root, "a.log", "keep.log", "d/b.log", "d/c", "build/x", "d/build/y", "e/t.tmp", "e/f/t.tmp", "e/u")
    (root / ".shardfsignore").write_text("*.log\n!keep.log\n/build/\n")
    (root / "e/.shardfsignore").write_text("/t.tmp\n")
    everything = found(root, ignored=True)
    assert set(everything) - set(found(root)) == {"a.log", "d/b.log", "build/x", "e/t.tmp"}


def test_rules_above_a_start_hold(root: Path) -> None:
    make(root, "d/a.log", "d/e/b.log", "d/e/c")
    (root / ".shardfsignore").write_text("*.log\n")
    (root / "d/.shardfsignore").write_text("!b.log\n")
    assert found(root, "d/e") == ["d/e/b.log", "d/e/c"]
    assert found(root, "d/e/*") == ["d/e/b.log", "d/e/c"]


@pytest.mark.parametrize("path", ["a.log", "build", "build/x", "build/deep/y"])
def test_an_ignored_path_that_is_named_is_an_error(root: Path, path: str) -> None:
    make(root, "a.log", "build/x", "build/deep/y")
    (root / ".shardfsignore").write_text("*.log\nbuild/\n")
    with pytest.raises(UsageError, match=r"is ignored by \.shardfsignore"):
        found(root, path)
    assert found(root, path, ignored=True)


def test_a_bad_ignore_file_is_named(root: Path) -> None:
    make(root, "d/a")
    (root / "d/.shardfsignore").write_text("[z-a]\n")
    with pytest.raises(MalformedError, match=r"d/\.shardfsignore, line 1"):
        found(root)


def test_ignore_files_that_are_links_or_pipes_do_not_lead_astray(root: Path) -> None:
    make(root, "a")
    os.mkfifo(root / ".shardfsignore")
    assert found(root, "a") == ["a"]
    (root / ".shardfsignore").unlink()
    (root / ".shardfsignore").symlink_to("/etc/passwd")
    with pytest.raises(StoreError, match=r"cannot read \.shardfsignore"):
        found(root)


def test_names_that_are_no_utf8(root: Path) -> None:
    name = b"\xff\xfename.bin"
    made = Path(os.fsdecode(os.fsencode(root) + b"/\xe9"))
    made.mkdir()
    (made / os.fsdecode(name)).touch()
    *_, folder = Scanner(root).scan()
    assert [path for path, _ in folder.found()] == [b"\xe9/" + name]
    assert folder.joined_names() == name
    assert found(root, os.fsdecode(b"\xe9")) == [os.fsdecode(b"\xe9/" + name)]
    assert found(root, os.fsdecode(b"\xe9/\xff*")) == [os.fsdecode(b"\xe9/" + name)]


def test_names_of_255_bytes_and_odd_ones(root: Path) -> None:
    names = ["n" * 255, "with\nnewline", " space ", "-dash", "back\\slash"]
    make(root, *names)
    assert sorted(found(root)) == sorted(names)
    for name in names:
        assert found(root, name) == [name]


@pytest.mark.parametrize(("kind", "shown"), [("pipe", "a pipe"), ("socket", "a socket")])
def test_special_files_are_refused_by_name(root: Path, kind: str, shown: str) -> None:
    make(root, "d/a")
    if kind == "pipe":
        os.mkfifo(root / "d/special")
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("d/special")
    for path in (".", "d/special"):
        with pytest.raises(UnsupportedFileError, match=f"d/special is {shown}"):
            found(root, path)
    refused: list[bytes] = []
    assert [folder.names for folder in Scanner(root, refused=refused).scan()] == [[], ["a"]]
    assert refused == [b"d/special"]
    (root / ".shardfsignore").write_text("special")
    assert found(root) == [".shardfsignore", "d/a"]


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK])
def test_devices_are_refused_by_name(root: Path, monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    # Only root can make a device; a file that says it is one does as well.
    make(root, "null")
    original = os.stat

    def pretending(*arguments: Any, **options: Any) -> os.stat_result:
        status = original(*arguments, **options)
        return os.stat_result((kind | 0o666, *status[1:])) if arguments[0] == "null" else status

    monkeypatch.setattr(os, "stat", pretending)
    with pytest.raises(UnsupportedFileError, match="null is a device"):
        found(root)


def test_mounts_are_neither_entered_nor_touched(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, "a", "models/latest/x", "d/mnt/y", "d/z")
    mounts = frozenset(os.fsencode(root / name) for name in ("models", "d/mnt"))
    monkeypatch.setattr(scan_module, "own_mounts", lambda: mounts)
    touched: list[str] = []
    for name in ("stat", "lstat", "open", "scandir"):
        original = getattr(os, name)

        def noting(path: str | bytes | int, *rest: object, _original: object = original, **more: object) -> object:
            touched.append(str(path))
            return _original(path, *rest, **more)  # type: ignore[operator]

        monkeypatch.setattr(os, name, noting)
    assert found(root) == ["a", "d/z"]
    for path in ("models", "models/latest/x", "d/mnt"):
        with pytest.raises(UsageError, match="inside the mount"):
            found(root, path)
    assert not [path for path in touched if "models" in path or "mnt" in path]


def test_a_root_inside_another_mount_point_name_is_walked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, "models2/a")
    monkeypatch.setattr(scan_module, "own_mounts", lambda: frozenset({os.fsencode(root / "models")}))
    assert found(root) == ["models2/a"]


def test_files_that_vanish_are_not_found(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, "a", "b", "d/c", "e/f")
    walk = Scanner(root).scan()
    assert next(walk).names == ["a", "b"]
    shutil.rmtree(root / "d")
    (root / "e/f").unlink()
    (root / "e").rmdir()
    (root / "e").symlink_to("/etc")
    assert list(walk) == []


def test_an_unreadable_directory_is_named(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(root, "d/a")
    opened = os.open

    def refusing(path: str, *rest: int, **more: int) -> int:
        if path.endswith("/d"):
            raise PermissionError(13, "Permission denied")
        return opened(path, *rest, **more)

    monkeypatch.setattr(os, "open", refusing)
    with pytest.raises(StoreError, match="cannot read d/: Permission denied"):
        found(root)


def test_deep_directories(root: Path) -> None:
    subprocess.run(["sh", "-c", "for i in $(seq 900); do mkdir d && cd d || exit 1; done; touch leaf"], check=True)
    got = found(root)
    assert got == ["d/" * 900 + "leaf"]
    subprocess.run(["rm", "-rf", "d"], check=True)
