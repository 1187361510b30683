"""A small soak in each run of the test suite; `make soak` does the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.soak import soak

OPERATIONS = 500  # about 20 s

pytestmark = [pytest.mark.fuse, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("seed", [1])
def test_mounts_agree_with_the_model(tmp_path: Path, seed: int) -> None:
    report = soak(tmp_path, seed, OPERATIONS)
    assert report.wrong() == []
    assert report.commits
