"""Errors become answers in one table."""

from __future__ import annotations

import asyncio
import json

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from shardfs import errors
from shardfs.server.failures import answer_failures


def answer_to(error: Exception) -> web.Response:
    async def handler(_: web.Request) -> web.StreamResponse:
        raise error

    found = asyncio.run(answer_failures(make_mocked_request("PUT", "/demo/x"), handler))
    assert isinstance(found, web.Response)
    return found


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MalformedError("m"), 400),
        (errors.UnsupportedVersionError("m"), 400),
        (errors.UsageError("m"), 400),
        (errors.ReadOnlyError("m"), 403),
        (errors.RepositoryNotFoundError("m"), 404),
        (errors.ChunkNotFoundError("m"), 404),
        (errors.AlreadyExistsError("m"), 409),
        (errors.RefChangedError("m", b"\1" * 32), 412),
        (errors.ChunkCorruptedError("m"), 500),
        (errors.IndexCorruptedError("m"), 500),
        (errors.StoreError("m"), 500),
        (errors.LockedError("m"), 503),
        (errors.OutOfSpaceError("m"), 507),
        (web.HTTPNotFound(text="m"), 404),
    ],
)
def test_statuses(error: Exception, status: int) -> None:
    answer = answer_to(error)
    assert answer.status == status
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["error"] == "m"
    assert ("Retry-After" in answer.headers) is (status == 503)


def test_bugs_are_told_to_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    answer = answer_to(ZeroDivisionError("secret"))
    assert answer.status == 500
    assert b"secret" not in bytes(answer.body)  # type: ignore[arg-type]
    assert "ZeroDivisionError" in caplog.text


def test_clients_that_hang_up_are_no_failure() -> None:
    with pytest.raises(ConnectionResetError):
        answer_to(ConnectionResetError())
