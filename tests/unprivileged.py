"""Being somebody else than root, with a device of one's own choice: what most users of a mount are."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

USER = "nobody"
# A device of its own in a mount namespace of its own; then the rest of the arguments as another user. The one
# capability lets it reach this interpreter and these tests wherever they are.
_BECOME = """
set -e
mount --make-rprivate /
mkdir -p "$1/dev" && mount -t tmpfs tmpfs "$1/dev"
mknod -m "$2" "$1/dev/fuse" c 10 229 && mount --bind "$1/dev/fuse" /dev/fuse
uid=$3 gid=$4; shift 4
exec setpriv --reuid "$uid" --regid "$gid" --clear-groups \
    --inh-caps -all,+dac_read_search --ambient-caps -all,+dac_read_search "$@"
"""


@contextmanager
def home() -> Iterator[Path]:
    """A folder of that user. Everybody may walk to it; pytest keeps its own 0700, also while another one runs.

    Skips the test where root cannot become somebody else.
    """
    if os.geteuid():
        pytest.skip("only root can become somebody else; all tests run unprivileged here")
    missing = [name for name in ("unshare", "setpriv", "fusermount3") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    if subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this container allows no mount namespaces")
    user = pwd.getpwnam(USER)
    with tempfile.TemporaryDirectory(prefix="shardfs-") as name:
        Path(name).chmod(0o711)
        found = Path(name) / "home"
        found.mkdir()
        os.chown(found, user.pw_uid, user.pw_gid)
        yield found


def run(
    folder: Path, argv: list[Any], *, device: int = 0o666, cwd: Path | None = None, **environment: str
) -> tuple[int, str]:
    """Run a program as that user, with its home below `folder`: exit status and output.

    Args:
        folder: of `home`.
        argv: program and arguments.
        device: mode of /dev/fuse.
        cwd: where, if not in `folder`.
        environment: variables of the program alone.
    """
    user = pwd.getpwnam(USER)
    who = [f"{device:o}", str(user.pw_uid), str(user.pw_gid)]
    given = {"HOME": folder, "TMPDIR": folder, "PYTHONDONTWRITEBYTECODE": "1", **environment}
    variables = [shutil.which("env") or "env", *(f"{name}={value}" for name, value in given.items())]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", _BECOME, "sh", folder.parent, *who, *variables, *argv],
        cwd=cwd or folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )
    return done.returncode, done.stdout
