from __future__ import annotations

from collections.abc import Callable

import pytest

from shardfs.tensors import Layout, detect


def detect_bytes(data: bytes, name: bytes = b"") -> Layout | None:
    return detect(lambda offset, size: data[offset : offset + size], len(data), name)


@pytest.fixture
def detected() -> Callable[..., Layout | None]:
    return detect_bytes
