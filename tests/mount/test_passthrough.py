"""Plain files that the kernel reads itself: nobody waits for the daemon, and nobody sees that anything changed."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from tests.mount.conftest import Mounted, add_commit, eventually, make_project, mounting, private_folders, stopped
from tests.stores import noise

pytestmark = [
    pytest.mark.fuse,
    pytest.mark.skipif(os.geteuid() != 0, reason="passing files through takes CAP_SYS_ADMIN"),
]

DATA = noise(7, 5 << 20)
MAP = "import mmap, os, sys; m = mmap.mmap(os.open(sys.argv[1], os.O_RDONLY), 0, prot=mmap.PROT_READ); "


@pytest.fixture
def mounted(tmp_path: Path, home: Path) -> Iterator[Mounted]:
    """Two versions with the same large file."""
    project = tmp_path / "project"
    with private_folders(home):
        make_project(project, {"model.bin": DATA}, "one")
        with shardfs.open(project) as repo:
            add_commit(repo, {"more": b"more"}, "two")
    with mounting(project, tmp_path / "models", tmp_path / "daemon") as found:
        yield found


def version(mounted: Mounted, name: str) -> Path:
    return (mounted.point / "versions" / name).resolve() / "model.bin"


def passed_through(mounted: Mounted) -> int:
    return int(mounted.stats()["engine"]["passed_through"])


def test_all_versions_of_a_plain_file_are_read_without_the_daemon(mounted: Mounted) -> None:
    one, two = version(mounted, "0001-one"), version(mounted, "0002-two")
    mounted.make_plain(one)
    with one.open("rb", buffering=0) as first, two.open("rb", buffering=0) as second:
        assert passed_through(mounted) >= 2
        os.posix_fadvise(first.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with stopped(mounted):
            assert os.pread(first.fileno(), len(DATA), 0) == DATA
            assert os.pread(second.fileno(), len(DATA), 0) == DATA


def test_mappings_and_direct_reads_pass_through(mounted: Mounted) -> None:
    path = version(mounted, "0001-one")
    mounted.make_plain(path)
    program = MAP + "sys.stdin.readline(); import hashlib; print(hashlib.sha256(m).hexdigest())"
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as reader:
        before = passed_through(mounted)
        assert eventually(lambda: str(path) in Path(f"/proc/{reader.pid}/maps").read_text(), 10)
        with stopped(mounted):
            said, _ = reader.communicate(b"\n")
    assert said.decode().strip() == hashlib.sha256(DATA).hexdigest()
    direct = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        with mmap.mmap(-1, len(DATA)) as aligned:
            assert os.preadv(direct, [aligned], 0) == len(DATA)
            assert aligned[:] == DATA
    finally:
        os.close(direct)
    assert passed_through(mounted) > before


def test_a_file_that_becomes_plain_while_it_is_open_goes_on_as_before(mounted: Mounted) -> None:
    path = version(mounted, "0001-one")
    with path.open("rb", buffering=0) as old:
        assert old.read(100) == DATA[:100]
        mounted.make_plain(path)
        before = passed_through(mounted)
        with path.open("rb", buffering=0) as young:
            assert passed_through(mounted) == before
            assert young.read() == old.read(0) + DATA
            assert old.read() == DATA[100:]
    with path.open("rb", buffering=0):
        assert passed_through(mounted) == before + 1


def test_a_plain_file_that_is_gone_is_read_on_while_it_is_open(mounted: Mounted) -> None:
    path = version(mounted, "0001-one")
    mounted.make_plain(path)
    plain = Path(os.fsdecode(os.getxattr(path, "user.shardfs.realpath")))
    with path.open("rb", buffering=0) as old:
        plain.unlink()
        with path.open("rb", buffering=0) as young:
            assert young.read() == old.read() == DATA
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert file.read() == DATA


def test_nobody_sees_that_files_become_plain_and_are_lost(mounted: Mounted) -> None:
    """The kernel fails open(2) of a node whose open files do not agree; here they change all the time."""
    paths = [version(mounted, "0001-one"), version(mounted, "0002-two")]
    mounted.make_plain(paths[0])
    plain = Path(os.fsdecode(os.getxattr(paths[0], "user.shardfs.realpath")))
    wrong: list[object] = []
    opened: list[int] = []
    stop = threading.Event()

    def read(number: int) -> None:
        while not stop.wait(0.002 * number):
            try:
                with paths[number % 2].open("rb", buffering=0) as file:
                    if os.pread(file.fileno(), 4096, number << 16) != DATA[number << 16 :][:4096]:
                        wrong.append(number)
                    opened.append(number)
            except OSError as error:
                wrong.append(error)

    first = passed_through(mounted)
    threads = [threading.Thread(target=read, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    try:
        for turn in range(3):
            before, aside = passed_through(mounted), plain.with_name("aside")
            plain.rename(aside)
            count = len(opened)
            assert eventually(lambda least=count + 20: len(opened) > least, 20)  # type: ignore[misc]
            aside.rename(plain)
            assert eventually(lambda least=before + 10: passed_through(mounted) > least, 20), turn  # type: ignore[misc]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert len(opened) > passed_through(mounted) - first > 30


def test_what_the_daemon_reads_of_plain_files_in_memory_takes_no_worker(
    mounted: Mounted, tmp_path: Path, home: Path
) -> None:
    with mounting(mounted.project, tmp_path / "others", home, passthrough=False) as other:
        path = version(other, "0001-one")
        other.make_plain(path)
        plain = Path(os.fsdecode(os.getxattr(path, "user.shardfs.realpath")))
        with path.open("rb", buffering=0) as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            assert plain.read_bytes() == DATA
            before = other.stats()["engine"]
            assert os.pread(file.fileno(), len(DATA), 0) == DATA
            after = other.stats()["engine"]
    requests = -(-len(DATA) // (1 << 20))  # of 1 MiB each, if the daemon has raised the readahead; else more
    assert after["requests"] - before["requests"] >= requests
    assert after["at_once"] - before["at_once"] >= requests


def test_safe_and_unwanted_passthrough_do_not_happen(mounted: Mounted, tmp_path: Path, home: Path) -> None:
    for number, options in enumerate(({"safe": True}, {"passthrough": False})):
        point = tmp_path / f"models-{number}"
        with mounting(mounted.project, point, home, **options) as other:
            path = version(other, "0001-one")
            other.make_plain(path)
            assert path.read_bytes() == DATA
            found = other.stats()["engine"]
            assert (found["passed_through"], found["passthrough"]) == (0, False)
