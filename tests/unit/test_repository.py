"""The facade as a program uses it: work tree, staging, commits, switching, remotes that are directories."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import (
    AlreadyExistsError,
    ChunkCorruptedError,
    LocalChangesError,
    NotFastForwardError,
    NothingToCommitError,
    PathNotFoundError,
    ReadOnlyError,
    RefNotFoundError,
    RevisionNotFoundError,
    StoreError,
    UnsupportedFileError,
    UsageError,
)
from shardfs.repository import Repository
from tests.stores import flip


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def repo(project: Path) -> Iterator[Repository]:
    with shardfs.init(project) as found:
        yield found


def write(path: str, text: str) -> Path:
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    # A file as old as its neighbours is not taken for one that may still change.
    os.utime(place, ns=(10**18, 10**18))
    return place


def content(repo: Repository, where: str) -> bytes:
    with repo.read(where) as file:
        return file.read()


def test_commit_keeps_bytes_modes_links_and_empty_directories(repo: Repository) -> None:
    write("weights/model.bin", "weights")
    write("run.sh", "#!/bin/sh\n").chmod(0o755)
    write("empty", "")
    Path("link").symlink_to("weights/model.bin")
    Path("logs").mkdir()
    repo.add(["."])
    repo.commit("initial")
    repo.export("HEAD", Path("../out"))
    out = Path("../out")
    assert (out / "weights/model.bin").read_text() == "weights"
    assert (out / "run.sh").stat().st_mode & stat.S_IXUSR
    assert not (out / "empty").stat().st_size
    assert (out / "link").readlink() == Path("weights/model.bin")
    assert list((out / "logs").iterdir()) == []


def test_commit_takes_what_was_added_not_what_changed_since(repo: Repository) -> None:
    write("a", "one")
    repo.add(["a"])
    write("a", "two")
    repo.commit("first")
    assert content(repo, "HEAD:a") == b"one"
    assert repo.status().modified == ["a"]


@pytest.mark.parametrize("beside", [(), ("other",)], ids=["alone", "with-another"])
@pytest.mark.parametrize("noticed_by", ["reading", "verify"])
def test_adding_a_damaged_file_again_heals_it(repo: Repository, noticed_by: str, beside: tuple[str, ...]) -> None:
    for name in ("model", *beside):
        Path(name).write_bytes(os.urandom(50_000))
        os.utime(name, ns=(10**18, 10**18))
    repo.add(["."])
    repo.commit("first")
    repo.add(["."])
    damaged = repo.store.find(repo.entry("HEAD", "model").chunk)[0]  # type: ignore[union-attr, arg-type]
    path = repo.store.layout.pack(damaged.pack)
    flip(path, damaged.entry.offset + 20_000, 3)
    with shardfs.open(".") as fresh:
        if noticed_by == "verify":
            assert [problem.kind for problem in fresh.verify().problems] == ["pack", "chunk"]
        else:
            with pytest.raises(ChunkCorruptedError):
                content(fresh, "HEAD:model")
        assert fresh.add(["model"]).bytes_stored == 50_000
        assert content(fresh, "HEAD:model") == Path("model").read_bytes()
        assert fresh.add(["model"]).bytes_read == 0
        fresh.gc(grace_s=0)
        assert fresh.verify().problems == []
        assert content(fresh, "HEAD:model") == Path("model").read_bytes()


def test_a_disk_that_fails_once_does_not_make_content_damaged(
    repo: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("model").write_bytes(os.urandom(50_000))
    repo.add(["model"])
    repo.commit("first")

    def refuse(*_: object) -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with shardfs.open(".") as fresh:
        entry = fresh.entry("HEAD", "model")
        with monkeypatch.context() as broken:
            broken.setattr("shardfs.store.packs.os.pread", refuse)
            with pytest.raises(ChunkCorruptedError, match="Too many open files"):
                fresh.reader.chunk(entry.chunk, entry.size)  # type: ignore[union-attr, arg-type]
        assert not fresh.store.index.lacks_sound_copies()
        assert content(fresh, "HEAD:model") == Path("model").read_bytes()


def test_nothing_to_commit(repo: Repository) -> None:
    with pytest.raises(NothingToCommitError):
        repo.commit("empty")
    write("a", "one")
    repo.add(["a"])
    first = repo.commit("first")
    with pytest.raises(NothingToCommitError):
        repo.commit("again")
    assert repo.commit("anyway", allow_empty=True) != first


def test_a_blank_message_or_a_taken_tag_commits_nothing(repo: Repository) -> None:
    write("a", "one")
    repo.add(["a"])
    with pytest.raises(UsageError):
        repo.commit("  \n")
    first = repo.commit("first", tag="v1")
    write("b", "two")
    repo.add(["b"])
    with pytest.raises(AlreadyExistsError):
        repo.commit("second", tag="v1")
    assert repo.resolve("HEAD") == first
    assert [c.path for c in repo.status().staged] == [(b"b",)]


def test_what_was_committed_has_the_time_of_the_commit_in_staging(repo: Repository) -> None:
    write("a", "one")
    for time_us in (1_700_000_000_000_000, 1_800_000_000_000_000):
        repo.add(["a"])
        repo.commit("next", time_us=time_us, allow_empty=True)
        assert repo.area().find((b"a",)).mtime_ns == time_us * 1000


def test_status_tells_staged_modified_missing_and_untracked(repo: Repository) -> None:
    for name in ("kept", "changed", "gone"):
        write(name, name)
    repo.add(["."])
    repo.commit("first")
    write("changed", "other")
    Path("gone").unlink()
    write("new/one", "1")
    write("staged", "2")
    repo.add(["staged"])
    found = repo.status()
    assert (found.modified, found.missing, found.untracked) == (["changed"], ["gone"], ["new/"])
    assert [(c.kind.value, c.path) for c in found.staged] == [("added", (b"staged",))]


def test_status_sorts_what_is_staged_by_path(repo: Repository) -> None:
    for name in ("a/z", "a/b/c", "b"):
        write(name, name)
    repo.add(["."])
    assert [c.path for c in repo.status().staged] == [(b"a", b"b", b"c"), (b"a", b"z"), (b"b",)]


def test_add_with_update_deleted_stages_deletions(repo: Repository) -> None:
    write("a", "one")
    write("b", "two")
    repo.add(["."])
    repo.commit("first")
    Path("a").unlink()
    assert repo.add(["."], update_deleted=True).removed == 1
    repo.commit("second")
    assert [e.name for e in repo.entries("HEAD")] == [b"b"]


def test_directories_that_are_gone_are_no_longer_staged(repo: Repository) -> None:
    for name in ("kept/a", "gone/deep/b", "gone/c", "half/d", "half/e"):
        write(name, name)
    repo.add(["."])
    repo.commit("first")
    shutil.rmtree("gone")
    Path("half/d").unlink()
    assert repo.add([".", "half"], update_deleted=True).removed == 3
    repo.commit("second")
    assert [path for path, _ in repo.walk("HEAD")] == [(b"half",), (b"half", b"e"), (b"kept",), (b"kept", b"a")]


def test_add_refuses_what_cannot_be_versioned_and_stages_nothing(repo: Repository) -> None:
    write("a", "one")
    os.mkfifo("pipe")
    with pytest.raises(UnsupportedFileError, match="pipe"):
        repo.add(["."])
    with pytest.raises(PathNotFoundError):
        repo.add(["missing"])
    with pytest.raises(UsageError):
        repo.add(["/etc/hostname"])
    assert repo.add([]).files == 0
    assert repo.status().staged == []


def test_rm_removes_unchanged_files_and_refuses_changed_ones(repo: Repository) -> None:
    write("dir/a", "one")
    write("dir/b", "two")
    repo.add(["."])
    repo.commit("first")
    write("dir/b", "changed")
    with pytest.raises(LocalChangesError):
        repo.remove(["dir"])
    assert Path("dir/a").exists()
    assert repo.remove(["dir"], keep=True) == ["dir/a", "dir/b"]
    assert Path("dir/b").read_text() == "changed"
    repo.commit("second")
    assert list(repo.walk("HEAD")) == []


def test_reset_takes_staging_back_to_the_tip(repo: Repository) -> None:
    write("a", "one")
    repo.add(["a"])
    repo.commit("first")
    write("a", "two")
    write("b", "new")
    repo.add(["."])
    assert repo.reset(["b"]) == ["b"]
    assert [c.path for c in repo.status().staged] == [(b"a",)]
    assert repo.reset() == ["a"]
    assert repo.status().staged == []
    assert Path("a").read_text() == "two"


def test_checkout_never_overwrites_what_is_stored_nowhere(repo: Repository) -> None:
    write("a", "one")
    repo.add(["a"])
    repo.commit("first")
    write("a", "two")
    repo.add(["a"])
    repo.commit("second")
    repo.checkout("HEAD~1", ["a"])
    assert Path("a").read_text() == "one"
    write("a", "precious")
    with pytest.raises(LocalChangesError):
        repo.checkout("HEAD", ["a"])
    assert Path("a").read_text() == "precious"
    repo.checkout("HEAD", ["a"], force=True)
    assert Path("a").read_text() == "two"


def test_checkout_writes_nothing_through_a_link_out_of_the_tree(repo: Repository, tmp_path: Path) -> None:
    write("dir/a", "one")
    repo.add(["."])
    repo.commit("first")
    outside = tmp_path / "outside"
    outside.mkdir()
    target = tmp_path / "target"
    target.mkdir()
    (target / "dir").symlink_to(outside)
    with pytest.raises(AlreadyExistsError):
        repo.checkout("HEAD", into=target)
    assert list(outside.iterdir()) == []


def test_import_makes_a_directory_the_whole_tree(repo: Repository, tmp_path: Path) -> None:
    write("old", "1")
    write("folder/deep/old", "1")
    repo.add(["."])
    repo.commit("first")
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "new").write_text("2")
    repo.import_directory(source, "imported")
    assert [path for path, _ in repo.walk("HEAD")] == [(b"sub",), (b"sub", b"new")]
    write("staged", "3")
    repo.add(["staged"])
    with pytest.raises(LocalChangesError):
        repo.import_directory(source, "again")


def test_switch_swaps_files_and_refuses_to_lose_changes(repo: Repository) -> None:
    write("a", "main")
    repo.add(["a"])
    repo.commit("first")
    repo.switch("exp", create=True)
    write("a", "exp")
    write("only", "exp")
    repo.add(["."])
    repo.commit("on exp")
    repo.switch("main")
    assert Path("a").read_text() == "main"
    assert not Path("only").exists()
    write("a", "precious")
    with pytest.raises(LocalChangesError):
        repo.switch("exp")
    assert (repo.current_branch(), Path("a").read_text()) == ("main", "precious")
    repo.switch("exp", force=True)
    assert (Path("a").read_text(), Path("only").read_text()) == ("exp", "exp")


def test_switch_makes_files_of_directories_and_directories_of_files(repo: Repository) -> None:
    write("a", "file")
    write("d/deep/b", "in a directory")
    repo.add(["."])
    repo.commit("first")
    repo.switch("exp", create=True)
    Path("a").unlink()
    write("a/now/c", "in a directory")
    shutil.rmtree("d")
    write("d", "file")
    repo.add(["."], update_deleted=True)
    repo.commit("the other way round")
    repo.switch("empty", create=True)
    repo.area().remove((b"d",))
    repo.area().mkdir(repo.area().root, b"d", 0o755)
    repo.commit("an empty directory")
    repo.switch("exp")
    write("d", "file")  # the same, written anew
    repo.switch("empty")
    assert not Path("d").exists()
    repo.switch("main")
    assert (Path("a").read_text(), Path("d/deep/b").read_text()) == ("file", "in a directory")
    repo.switch("exp")
    assert (Path("a/now/c").read_text(), Path("d").read_text()) == ("in a directory", "file")


def test_switch_replaces_files_that_fell_behind_the_tip(repo: Repository) -> None:
    write("a", "one")
    repo.add(["a"])
    repo.commit("first")
    repo.switch("exp", create=True)
    write("a", "on exp")
    repo.add(["a"])
    repo.commit("on exp")
    repo.switch("main")
    area = repo.area()
    area.start_session("a mount")
    file = area.open_file(area.find((b"a",)).ino, os.O_WRONLY | os.O_TRUNC)
    file.write(0, b"through the mount")
    file.release()
    repo.commit("second")
    os.utime("a", ns=(10**18, 10**18))
    repo.add(["a"])
    repo.reset()
    assert Path("a").read_text() == "one"
    repo.switch("exp")
    assert Path("a").read_text() == "on exp"
    repo.switch("main")
    assert Path("a").read_text() == "through the mount"


def test_switch_leaves_a_work_tree_without_files_empty(repo: Repository) -> None:
    write("a", "main")
    repo.add(["a"])
    repo.commit("first")
    repo.switch("exp", create=True)
    write("b", "exp")
    repo.add(["b"])
    repo.commit("on exp")
    Path("a").unlink()
    Path("b").unlink()
    repo.switch("main")
    repo.switch("exp")
    assert [p.name for p in Path().iterdir()] == [".shardfs"]


def test_each_branch_has_its_own_staging(repo: Repository) -> None:
    write("a", "1")
    repo.add(["a"])
    repo.commit("first")
    repo.create_branch("exp")
    write("b", "2")
    repo.add(["b"])
    repo.switch("exp")
    assert repo.status().staged == []
    repo.switch("main")
    assert [c.path for c in repo.status().staged] == [(b"b",)]


def test_revisions(repo: Repository) -> None:
    write("a", "1")
    repo.add(["a"])
    first = repo.commit("first", tag="v1")
    write("a", "2")
    repo.add(["a"])
    second = repo.commit("second")
    assert repo.resolve("HEAD~1") == repo.resolve("v1") == repo.resolve("main^") == first
    assert repo.resolve(second.hex()[:8]) == second
    for bad in ("HEAD~2", "nope", "", "abcd", "~1", "main..exp"):
        with pytest.raises(RevisionNotFoundError):
            repo.resolve(bad)


def test_branches_and_tags_are_made_and_deleted(repo: Repository) -> None:
    write("a", "1")
    repo.add(["a"])
    repo.commit("first")
    repo.create_branch("exp")
    with pytest.raises(AlreadyExistsError):
        repo.create_branch("exp")
    for bad in ("../x", "a b", "-x", "HEAD", "deadbeef", "a..b", "x.lock", ""):
        with pytest.raises(UsageError):
            repo.create_branch(bad)
    repo.switch("exp")
    write("a", "2")
    repo.add(["a"])
    repo.commit("on exp")
    with pytest.raises(UsageError):
        repo.delete_branch("exp")
    repo.switch("main")
    with pytest.raises(NotFastForwardError):
        repo.delete_branch("exp")
    repo.delete_branch("exp", force=True)
    with pytest.raises(RefNotFoundError):
        repo.delete_branch("exp")
    assert list(repo.branches()) == ["main"]


def test_push_clone_pull_and_divergence(repo: Repository, tmp_path: Path) -> None:
    shardfs.init(tmp_path / "bare", bare=True).close()
    write("a", "1")
    repo.add(["a"])
    repo.commit("first")
    repo.add_remote("origin", str(tmp_path / "bare"))
    repo.push()
    assert repo.stats().remote_chunks == 0
    with shardfs.clone(str(tmp_path / "bare"), tmp_path / "copy") as copy:
        assert copy.stats().remote_chunks == 1
        assert content(copy, "main:a") == b"1"
        assert [p.name for p in (tmp_path / "copy").iterdir()] == [".shardfs"]
        write("a", "2")
        repo.add(["a"])
        second = repo.commit("second")
        repo.push()
        assert copy.pull().new == second
        assert content(copy, "HEAD:a") == b"2"
        copy.commit("here", allow_empty=True)
        repo.commit("there", allow_empty=True)
        repo.push()
        with pytest.raises(NotFastForwardError):
            copy.pull()
        with pytest.raises(NotFastForwardError):
            copy.push()


def test_remotes_that_are_added_at_once_are_all_remembered(repo: Repository) -> None:
    def add(number: int) -> None:
        with shardfs.open() as mine:
            mine.add_remote(f"r{number}", f"/srv/{number}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(16)))
    with shardfs.open() as again:
        assert again.remotes().keys() == {f"r{number}" for number in range(16)}


def test_what_only_a_forgotten_remote_had_is_stored_again(repo: Repository, tmp_path: Path) -> None:
    write("a", "only there" * 1000)
    repo.add(["a"])
    repo.commit("first")
    with shardfs.clone(str(repo.store_path), tmp_path / "copy") as copy:
        copy.remove_remote("origin")
        problems = copy.verify().problems
        assert [problem.file for problem in problems] == ["a"]
        shutil.copy("a", tmp_path / "copy" / "a")
        copy.add([tmp_path / "copy" / "a"])
        assert content(copy, "HEAD:a") == b"only there" * 1000
        assert copy.verify().ok


def test_a_view_of_a_remote_refuses_changes(repo: Repository, tmp_path: Path) -> None:
    write("a", "1")
    repo.add(["a"])
    repo.commit("first")
    with shardfs.open_remote(str(repo.store_path)) as view:
        assert content(view, "main:a") == b"1"
        with pytest.raises(ReadOnlyError):
            view.commit("no")
        repo.commit("second", allow_empty=True)
        view.refresh()
        assert [version.name for version in view.versions()] == ["0001-first", "0002-second"]


def test_a_view_whose_cache_is_deleted_is_made_again(repo: Repository, tmp_path: Path) -> None:
    write("a", "1")
    repo.add(["a"])
    repo.commit("first", tag="v1")
    with shardfs.open_remote(str(repo.store_path)) as view:
        assert content(view, "main:a") == b"1"
        shutil.rmtree(view.store_path.parent)
        with pytest.raises(StoreError):
            view.branches()  # a mount goes on with what it knows, an empty answer would take everything away
        view.refresh()
        assert list(view.tags()) == ["v1"]
        assert content(view, "main:a") == b"1"
        repo.commit("second", allow_empty=True)
        view.refresh()
        assert [version.name for version in view.versions()] == ["0001-first", "0002-second"]
        assert list(view.store_path.parent.iterdir()) == [view.store_path]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root")
def test_a_store_on_a_read_only_disk_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", disk], check=True)
    try:
        with shardfs.init(disk) as repo:
            monkeypatch.chdir(disk)
            write("a", "1")
            repo.add(["a"])
            repo.commit("first")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with shardfs.open(disk) as repo:
            assert content(repo, "HEAD:a") == b"1"
            assert repo.status().head == repo.resolve("HEAD")
            for change in (lambda: repo.add(["a"]), lambda: repo.commit("no"), lambda: repo.create_branch("b")):
                with pytest.raises(ReadOnlyError):
                    change()
    finally:
        monkeypatch.chdir(tmp_path)
        subprocess.run(["umount", disk], check=True)


def test_code_version_models_and_logs_are_recorded(repo: Repository, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    write("train.py", "print()")
    subprocess.run([*git, "add", "train.py"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "code"], check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    log = tmp_path / "train.log"
    log.write_text("loss 1.0\n")
    write("train.py", "print(1)")
    repo.add(["train.py"])
    repo.commit("first", meta={"epoch": 3}, logs=[log], datasets={"d": tmp_path / "train.log"})
    found = repo.commit_of("HEAD")[1]
    assert found.auto["code"] == {"git": head, "dirty": True}
    assert found.auto["datasets"]["d"]["bytes"] == 9
    assert found.meta == {"epoch": 3}
    (entry,) = repo.attachments("HEAD")
    assert repo.open_entry(entry).read_at(0, 100) == b"loss 1.0\n"
