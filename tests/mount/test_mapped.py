"""Mappings of committed files: private writes, many threads, and everything evicted below them."""

from __future__ import annotations

import mmap
import os
import random
import threading
from pathlib import Path

import pytest

import shardfs
from tests.mount.conftest import make_project, mounting, private_folders

pytestmark = [pytest.mark.fuse, pytest.mark.usefixtures("engine")]

DATA = random.Random(5).randbytes(12 << 20)
THREADS = 32
PAGE = mmap.PAGESIZE


def test_private_mappings_threads_and_evictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_MEMORY_BUDGET", "2MiB")
    make_project(tmp_path / "project", {"model.bin": DATA})
    with mounting(tmp_path / "project", tmp_path / "models", tmp_path / "home") as mounted:
        fd = os.open(mounted.latest / "model.bin", os.O_RDONLY)
        wrong: list[int] = []
        with mmap.mmap(fd, len(DATA), mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
            mapping[: 4 * PAGE] = bytes(4 * PAGE)

            def read(seed: int) -> None:
                chance = random.Random(seed)
                for _ in range(20):
                    at = chance.randrange(4 * PAGE, len(DATA) - PAGE)
                    if mapping[at : at + PAGE] != DATA[at : at + PAGE]:
                        wrong.append(at)

            threads = [threading.Thread(target=read, args=(seed,)) for seed in range(THREADS)]
            for thread in threads:
                thread.start()
            for _ in range(5):
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
                with private_folders(tmp_path / "home"), shardfs.open(tmp_path / "project") as repo:
                    repo.warm("HEAD")
                    repo.evict()
            for thread in threads:
                thread.join()
            assert wrong == []
            assert mapping[: 4 * PAGE] == bytes(4 * PAGE)
            assert mapping[4 * PAGE :] == DATA[4 * PAGE :]
        assert os.pread(fd, len(DATA), 0) == DATA
        os.close(fd)
