"""What the files of the AWS command line say of a profile: keys, region and endpoint.

Only keys that stand in the files are used. Profiles that log in (SSO), assume a role or run a program are left to
`aws configure export-credentials`.
"""

from __future__ import annotations

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shardfs.errors import UsageError

_PAIR: Final = ("aws_access_key_id", "aws_secret_access_key")
_KEYS: Final = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}


def read_profile(environment: Mapping[str, str]) -> dict[str, str]:
    """Options of obstore by the profile that the environment names, or by `default`; empty when there is none.

    Raises:
        UsageError: a profile was named and is in neither file, has one key of two, or a file cannot be parsed.
    """
    named = environment.get("AWS_PROFILE") or environment.get("AWS_DEFAULT_PROFILE")
    profile = named or "default"
    home = Path.home() / ".aws"
    config = _section(environment.get("AWS_CONFIG_FILE") or home / "config", profile, f"profile {profile}")
    secret = _section(environment.get("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials", profile, profile)
    if named and config is None and secret is None:
        msg = f"there is no AWS profile {profile!r}; see AWS_PROFILE and ~/.aws/config"
        raise UsageError(msg)
    found = {**(config or {}), **(secret or {})}
    for given, missing in (_PAIR, _PAIR[::-1]):
        if found.get(given) and not found.get(missing):
            msg = f"the AWS profile {profile!r} has {given} and no {missing}; see ~/.aws/credentials"
            raise UsageError(msg)
    return {_KEYS[key]: value for key, value in found.items() if key in _KEYS and value}


def _section(path: str | Path, profile: str, name: str) -> dict[str, str] | None:
    parser = configparser.RawConfigParser()
    place = Path(path).expanduser()
    try:
        parser.read_string(place.read_text("utf-8"))
    except OSError:
        return None
    except (configparser.Error, UnicodeDecodeError):
        # The parser's message quotes the line, which may be a key.
        msg = f"{place} cannot be parsed"
        raise UsageError(msg) from None
    section = profile if profile == "default" or not parser.has_section(name) else name
    return dict(parser.items(section)) if parser.has_section(section) else None
