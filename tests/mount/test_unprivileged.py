"""Who is not root mounts with fusermount3, gets small requests, and no plain files are read by the kernel itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests import unprivileged

HERE = Path(__file__).parent
SUITES = (HERE / "test_posix.py", HERE / "test_lifecycle.py")
SOME = "posix and ([kernel] or [passthrough] or ([libfuse] and every)) or lifecycle and kernel and (ready or blocked)"

pytestmark = [pytest.mark.fuse, pytest.mark.slow]


def test_the_suite_passes_for_users_who_are_not_root() -> None:
    with unprivileged.home() as home:
        pytest_argv = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "-k", SOME]
        status, said = unprivileged.run(home, [*pytest_argv, f"--basetemp={home}/tests", *SUITES], cwd=HERE.parents[1])
    assert status == 0, said
    assert " passed" in said
