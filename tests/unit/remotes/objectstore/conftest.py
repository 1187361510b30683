from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3server import S3Server, s3_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A small server that speaks S3, in the environment of the test."""
    with s3_server() as running:
        running.use(monkeypatch)
        yield running
