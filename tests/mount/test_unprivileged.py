"""Who is not root mounts with fusermount3, gets small requests, and no plain files are read by the kernel itself."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
USER = "nobody"
# A device that everybody may open, in a mount namespace of its own; then the rest of the arguments as another user.
# The one capability lets it reach this interpreter and these tests wherever they are.
BECOME = """
set -e
mount --make-rprivate /
mkdir "$1/dev" && mount -t tmpfs tmpfs "$1/dev"
mknod -m 0666 "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse
uid=$2 gid=$3; shift 3
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups \
    --inh-caps -all,+dac_read_search --ambient-caps -all,+dac_read_search "$@"
"""

SUITES = (HERE / "test_posix.py", HERE / "test_lifecycle.py")
SOME = "posix and ([kernel] or [passthrough] or ([libfuse] and every)) or lifecycle and kernel and (ready or blocked)"

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Everybody may walk through it; pytest keeps its own folders 0700, also while another one runs."""
    with tempfile.TemporaryDirectory(prefix="shardfs-") as name:
        Path(name).chmod(0o711)
        yield Path(name)


def test_the_suite_passes_for_users_who_are_not_root(folder: Path) -> None:
    if os.geteuid():
        pytest.skip("the suite itself runs so already")
    missing = [name for name in ("unshare", "setpriv", "fusermount3") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this container allows no mount namespaces")
    user = pwd.getpwnam(USER)
    home = folder / "home"
    home.mkdir()
    os.chown(home, user.pw_uid, user.pw_gid)
    run = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "-k", SOME]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", BECOME, "sh", folder, str(user.pw_uid), str(user.pw_gid), *run,
         f"--basetemp={home}/tests", *SUITES],
        cwd=HERE.parents[1],
        env={**os.environ, "HOME": str(home), "TMPDIR": str(home), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
