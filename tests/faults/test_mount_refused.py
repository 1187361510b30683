"""Mounts that the system does not allow: one line that says what, why, and what to do."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.mount.kernel.channel import HELPER
from tests import unprivileged

pytestmark = pytest.mark.fuse

ROOT = Path(__file__).parents[2]
FUSE_CONF = Path("/etc/fuse.conf")


def run(home: Path, *argv: str, device: int = 0o666, path: str = "") -> tuple[int, str]:
    """`shardfs` as that user."""
    return unprivileged.run(
        home,
        [sys.executable, "-m", "shardfs_cli", *argv],
        device=device,
        PATH=path or os.environ["PATH"],
        PYTHONPATH=f"{ROOT}:{ROOT / 'cli'}",
        XDG_STATE_HOME=f"{home}/state",
        XDG_CACHE_HOME=f"{home}/cache",
    )


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """A home of a user, which is a repository."""
    with unprivileged.home() as found:
        status, said = run(found, "init", "-q")
        assert status == 0, said
        yield found


def refused(home: Path, *options: str, device: int = 0o666, path: str = "") -> str:
    """What a mount that fails says; nothing stays behind."""
    status, said = run(home, "mount", "models", *options, device=device, path=path)
    assert status == 1, said
    assert said.startswith("shardfs: ")
    assert said.count("\n") == 1
    assert not (home / "models").exists()
    return said


def test_other_users_may_not_look_unless_the_system_allows_it(home: Path) -> None:
    if FUSE_CONF.exists() and "\nuser_allow_other" in FUSE_CONF.read_text():
        pytest.skip("this system allows it")
    said = refused(home, "--allow-other")
    assert "root can add the line user_allow_other to /etc/fuse.conf; or mount without --allow-other" in said


def test_a_device_for_root_alone(home: Path) -> None:
    said = refused(home, device=0o600)
    assert "failed to open /dev/fuse: Permission denied" in said
    assert "chmod 0666 /dev/fuse" in said


def test_no_helper_in_path(home: Path) -> None:
    empty = home / "empty"
    empty.mkdir()
    said = refused(home, path=str(empty))
    assert said == "shardfs: fusermount3 is not in PATH; install it, for example: apt install fuse3\n"


def test_a_helper_without_its_bit(home: Path) -> None:
    """So it is in containers, where nobody may mount: the helper is there, the right is not."""
    helper = shutil.which(HELPER)
    assert helper is not None
    weak = home / "bin"
    weak.mkdir()
    shutil.copyfile(helper, weak / HELPER)
    (weak / HELPER).chmod(0o755)
    said = refused(home, path=f"{weak}:{os.environ['PATH']}")
    assert "Operation not permitted" in said
    assert "set-user-id bit" in said
    assert "--device /dev/fuse --cap-add SYS_ADMIN" in said
