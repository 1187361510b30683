from __future__ import annotations

from pathlib import Path

import pytest

from shardfs.errors import UsageError
from shardfs.remotes.objectstore.aws_profile import read_profile

CONFIG = """
[default]
region = eu-central-1
[profile team]
region = eu-west-1
endpoint_url = https://s3.example.org
output = json
[profile login]
sso_session = x
"""
CREDENTIALS = """
[default]
aws_access_key_id = AKIADEFAULT
aws_secret_access_key = with%percent
[team]
aws_access_key_id = AKIATEAM
aws_secret_access_key = s
aws_session_token = t
"""


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "config").write_text(CONFIG)
    (tmp_path / "credentials").write_text(CREDENTIALS)
    return {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }


def test_the_default_profile(files: dict[str, str]) -> None:
    assert read_profile(files) == {
        "access_key_id": "AKIADEFAULT",
        "secret_access_key": "with%percent",
        "region": "eu-central-1",
    }


def test_a_named_profile(files: dict[str, str]) -> None:
    assert read_profile({**files, "AWS_PROFILE": "team"}) == {
        "access_key_id": "AKIATEAM",
        "secret_access_key": "s",
        "session_token": "t",
        "region": "eu-west-1",
        "endpoint": "https://s3.example.org",
    }


def test_a_profile_without_keys(files: dict[str, str]) -> None:
    assert read_profile({**files, "AWS_PROFILE": "login"}) == {}


@pytest.mark.parametrize("key", ["aws_access_key_id", "aws_secret_access_key"])
def test_a_profile_with_one_key_of_two(files: dict[str, str], key: str) -> None:
    Path(files["AWS_SHARED_CREDENTIALS_FILE"]).write_text(f"[default]\n{key} = hidden\n")
    with pytest.raises(UsageError, match=f"the AWS profile 'default' has {key} and no aws_") as caught:
        read_profile(files)
    assert "hidden" not in str(caught.value)


def test_an_unknown_profile_is_named(files: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="no AWS profile 'teem'"):
        read_profile({**files, "AWS_PROFILE": "teem"})


def test_no_files_at_all(tmp_path: Path) -> None:
    none = {"AWS_CONFIG_FILE": str(tmp_path / "a"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "b")}
    assert read_profile(none) == {}


def test_a_torn_file_is_named_and_not_quoted(files: dict[str, str]) -> None:
    Path(files["AWS_SHARED_CREDENTIALS_FILE"]).write_text("aws_secret_access_key = hidden\n")
    with pytest.raises(UsageError, match="credentials cannot be parsed") as caught:
        read_profile(files)
    assert "hidden" not in str(caught.value)
    assert caught.value.__cause__ is None
