"""A full disk under a staging area: writes fail with ENOSPC, nothing stable is lost, and files can be deleted."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from shardfs.errors import AreaError, OutOfSpaceError
from shardfs.staging.area import Area, AreaFile
from shardfs.staging.reserve import SIZE
from tests.areas import MemoryStore

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs, which takes root")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


def _fill(file: AreaFile, byte: bytes) -> int:
    """Write until nothing more fits; the errno that says so."""
    try:
        for offset in range(0, 1 << 30, 65536):
            file.write(offset, byte * 65536)
    except AreaError as error:
        return error.errno or 0
    return 0


def _take_the_rest(place: Path) -> None:
    """Leave no room, not even for a log record."""
    with place.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"y" * 512)


def test_a_full_disk_can_be_emptied_by_deleting(disk: Path) -> None:
    store = MemoryStore()
    area = Area.open(disk / "area", store, store.open_content)
    area.start_session("test")
    kept = area.create(area.root, b"kept", 0o644)
    kept.write(0, b"stable")
    kept.fsync()
    kept.release()
    big = area.create(area.root, b"big", 0o644)
    assert _fill(big, b"x") == errno.ENOSPC
    _take_the_rest(disk / "rest")
    with suppress(AreaError):  # nothing can be recorded now; the kernel ignores what a release says
        big.release()
    area.unlink(area.root, b"big")
    free = os.statvfs(disk)
    assert free.f_bavail * free.f_frsize > 4 * SIZE
    file = area.create(area.root, b"after", 0o644)
    assert file.write(0, b"room again") == 10
    file.release()
    with area.snapshot() as snapshot:
        assert [found.path for found in snapshot.files] == [(b"after",), (b"kept",)]
    area.close()


def test_an_area_on_a_full_disk_says_so_or_opens_by_its_reserve(disk: Path) -> None:
    store = MemoryStore()
    Area.open(disk / "area", store, store.open_content).close()
    _take_the_rest(disk / "rest")
    with pytest.raises(OutOfSpaceError, match="No space left"):
        Area.open(disk / "area", store, store.open_content)
    (disk / "rest").unlink()
    with Area.open(disk / "area", store, store.open_content) as area:
        area.start_session("test")
    _take_the_rest(disk / "rest")
    with Area.open(disk / "area", store, store.open_content) as area:
        assert list(area.changes()) == []


def test_a_failed_rewrite_keeps_the_stable_content(disk: Path) -> None:
    store = MemoryStore()
    area = Area.open(disk / "area", store, store.open_content)
    area.start_session("test")
    file = area.create(area.root, b"model", 0o644)
    file.write(0, b"a" * 3_000_000)
    file.release()
    again = area.open_file(area.lookup(area.root, b"model").ino, os.O_WRONLY | os.O_TRUNC)
    assert _fill(again, b"b") == errno.ENOSPC
    with area.snapshot() as snapshot:
        (found,) = snapshot.files
        fd = found.open()
        assert os.pread(fd, 10, 0) == b"a" * 10
        os.close(fd)
        assert found.size == 3_000_000
    with suppress(AreaError):
        again.release()
    area.close()
