"""Checkouts that share the blocks of plain files, on a file system that can."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import shardfs
from shardfs.formats.tree import FileEntry
from shardfs.repository import Repository

MIB = 1 << 20
CONTENT = os.urandom(5 * MIB)
_FIEMAP = 0xC020660B  # linux/fs.h: FS_IOC_FIEMAP


@pytest.fixture(scope="module")
def xfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file system with shared blocks in a file."""
    if os.geteuid() != 0 or shutil.which("mkfs.xfs") is None:
        pytest.skip("needs root and mkfs.xfs")
    folder = tmp_path_factory.mktemp("xfs")
    image, point = folder / "image", folder / "point"
    with image.open("wb") as file:
        file.truncate(400 * MIB)  # the least that mkfs.xfs takes is 300 MiB
    point.mkdir()
    subprocess.run(["mkfs.xfs", "-q", image], check=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, point], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("needs loop devices")
    yield point
    subprocess.run(["umount", point], check=True)


@pytest.fixture
def repo(xfs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    place = xfs / tmp_path.name
    monkeypatch.setenv("SHARDFS_CACHE_DIR", str(place / "cache"))
    monkeypatch.setenv("SHARDFS_CACHE_SIZE", "100M")
    monkeypatch.setenv("SHARDFS_CACHE_MIN_FREE", "0")
    project = place / "project"
    project.mkdir(parents=True)
    (project / "model.bin").write_bytes(CONTENT)
    with shardfs.init(project) as found:
        found.add([project / "model.bin"])
        found.commit("first")
        yield found


def entry(repo: Repository) -> FileEntry:
    found = repo.entry("HEAD", "model.bin")
    assert isinstance(found, FileEntry)
    return found


def is_shared(path: Path) -> bool:
    """Whether the first extent of a file belongs to another file too."""
    request = bytearray(32 + 56)
    request[8:16] = (1 << 62).to_bytes(8, "little")  # length
    request[16:20] = (1).to_bytes(4, "little")  # sync first
    request[24:28] = (1).to_bytes(4, "little")  # extents
    with path.open("rb") as file:
        fcntl.ioctl(file, _FIEMAP, request)
    return bool(int.from_bytes(request[32 + 40 : 32 + 44], "little") & 0x2000)  # FIEMAP_EXTENT_SHARED


def test_checkout_shares_the_blocks_of_a_plain_file(repo: Repository) -> None:
    out = repo.store_path.parents[1] / "out"
    repo.export("HEAD", out / "before")
    assert not is_shared(out / "before" / "model.bin")
    assert repo._tier.make(entry(repo))
    repo.export("HEAD", out / "after")
    assert is_shared(out / "after" / "model.bin")
    assert (out / "after" / "model.bin").read_bytes() == CONTENT
    repo.checkout("HEAD", into=out / "checkout")
    assert is_shared(out / "checkout" / "model.bin")


def test_checkout_in_another_process_checks_first(repo: Repository) -> None:
    out = repo.store_path.parents[1] / "out"
    assert repo._tier.make(entry(repo))
    [plain] = (out.parent / "cache").glob("v3/files/*")
    plain.chmod(0o600)
    with plain.open("r+b") as file:
        file.seek(4 * MIB)
        file.write(b"damage")
    with shardfs.open(repo.store_path) as another:
        another.export("HEAD", out)
    assert (out / "model.bin").read_bytes() == CONTENT
    assert not is_shared(out / "model.bin")
    assert not plain.exists()


def test_checkout_on_another_file_system_copies(repo: Repository, tmp_path: Path) -> None:
    assert repo._tier.make(entry(repo))
    repo.export("HEAD", tmp_path / "out")
    assert (tmp_path / "out" / "model.bin").read_bytes() == CONTENT
