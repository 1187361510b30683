"""A file that changes while the server runs."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from shardfs.errors import MalformedError, StoreError
from shardfs.server import watched
from shardfs.server.watched import Watched


def parse(data: bytes) -> str:
    if data == b"bad":
        msg = "not good"
        raise MalformedError(msg)
    return data.decode()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(watched, "CHECK_S", 0)
    return tmp_path / "file"


def test_changes_are_seen(path: Path) -> None:
    file = Watched(path, parse, "nothing")
    assert file.get() == "nothing"
    path.write_text("one")
    assert file.get() == "one"
    path.with_name("new").write_text("two")
    path.with_name("new").replace(path)
    assert file.get() == "two"
    path.unlink()
    assert file.get() == "nothing"


def test_file_that_people_wrote_a_while_ago_is_read_at_once(path: Path) -> None:
    file = Watched(path, parse, "nothing", by_hand=True)
    path.write_text("one")
    os.utime(path, (1, 1))
    assert file.get() == "one"


def test_file_that_people_write_is_read_when_they_are_done(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("one")
    file = Watched(path, parse, "nothing", by_hand=True)

    def write(text: str) -> None:
        path.write_text(text)
        os.utime(path, (1e10, 1e10))  # an hour that has not come: only looking twice helps

    write("")
    assert file.get() == "one"
    write("two")
    assert [file.get(), file.get()] == ["one", "two"]
    path.unlink()
    assert [file.get() for _ in range(4)] == ["two"] * 4
    assert len(caplog.records) == 1
    assert "is gone" in caplog.records[0].getMessage()
    write("three")
    assert [file.get(), file.get()] == ["two", "three"]


def test_bad_file_is_said_once_and_changes_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_text("good")
    file = Watched(path, parse, "nothing")
    path.write_text("bad")
    with caplog.at_level(logging.WARNING):
        assert [file.get() for _ in range(3)] == ["good"] * 3
    (record,) = caplog.records
    assert str(path) in record.getMessage()
    assert "not good" in record.getMessage()
    path.write_text("better")
    assert file.get() == "better"


def test_bad_file_at_the_beginning(path: Path) -> None:
    path.write_text("bad")
    with pytest.raises(MalformedError, match="file: not good"):
        Watched(path, parse, "nothing")
    path.unlink()
    path.mkdir()
    with pytest.raises(StoreError, match="cannot be read"):
        Watched(path, parse, "nothing")


def test_file_is_not_looked_at_for_every_request(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "CHECK_S", 1000)
    path.write_text("one")
    file = Watched(path, parse, "nothing")
    path.write_text("other")
    assert file.get() == "one"
