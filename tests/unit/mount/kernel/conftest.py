from __future__ import annotations

import pytest

from shardfs.mount.vfs import Vfs
from tests.fuse_kernel import Kernel


@pytest.fixture
def kernel(vfs: Vfs) -> Kernel:
    return Kernel(vfs)
