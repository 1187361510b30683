"""Secrets: where they are found, for which URL, and where they are not sent."""

from __future__ import annotations

import base64
import os
import time
from pathlib import Path

import pytest

from shardfs.errors import MalformedError, RefNotFoundError, RemoteDeniedError, StoreError, UsageError
from shardfs.remotes import credentials, credentials_file
from shardfs.remotes.credentials import Authorization, authorization, keep
from shardfs.remotes.credentials_file import Entry, forget, save

HOST = "https://models.example.org"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def write(text: str, mode: int = 0o600) -> Path:
    path = credentials_file.path()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def test_nothing_is_known() -> None:
    assert authorization(HOST) is None


def test_the_url_outweighs_the_environment_and_that_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    save(HOST, Entry(token="of-file"))
    assert authorization(f"{HOST}/demo") == "Bearer of-file"
    monkeypatch.setenv("SHARDFS_TOKEN", "of-environment")
    monkeypatch.setenv("SHARDFS_TOKEN_URL", HOST)
    assert authorization(f"{HOST}/demo") == "Bearer of-environment"
    assert authorization("https://a%40b:s%20t@models.example.org/demo") == basic("a@b", "s t")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{HOST}/team/llm", "Bearer near"),
        (f"{HOST}:443/team/llm/deep/", "Bearer near"),
        ("https://MODELS.example.org/team/llm", "Bearer near"),
        (f"{HOST}/team", "Bearer team"),
        (f"{HOST}/team/llm2", "Bearer team"),
        (f"{HOST}/team2", None),
        (f"{HOST}:8443/team", None),
        ("https://models.example.org.evil.net/team", None),
        ("https://evil.net/models.example.org/team", None),
        ("http://models.example.org/team", None),
    ],
)
def test_the_nearest_prefix_counts(url: str, expected: str | None) -> None:
    save(f"{HOST}/team", Entry(token="team"))
    save(f"{HOST}/team/llm/", Entry(token="near"))
    assert authorization(url) == expected


def test_a_token_of_the_environment_is_for_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_TOKEN", "secret")
    for url in (HOST, "https://evil.example", "http://127.0.0.1:8750"):
        shown = Authorization(url)
        assert shown.header() is None
        assert f"set it to {url}" in shown.told
        assert "secret" not in shown.told
    monkeypatch.setenv("SHARDFS_TOKEN_URL", f"{HOST}/team")
    assert authorization(f"{HOST}/team/llm") == "Bearer secret"
    assert authorization(f"{HOST}/other") is None
    assert authorization("https://other.example.org/team") is None


@pytest.mark.parametrize("host", ["localhost:8750", "127.0.0.1", "127.8.9.1:1", "[::1]:8750"])
def test_plain_http_is_good_enough_for_this_machine(host: str) -> None:
    save(f"http://{host}/", Entry(token="secret"))
    assert authorization(f"http://{host}/demo") == "Bearer secret"


@pytest.mark.parametrize("host", ["models.example.org", "localhost.example.org", "10.0.0.7", "128.0.0.1", "[fe80::1]"])
def test_plain_http_to_another_machine_has_to_be_allowed(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://{host}/demo"
    monkeypatch.setenv("SHARDFS_TOKEN", "secret")
    monkeypatch.setenv("SHARDFS_TOKEN_URL", url)
    assert authorization(url) is None
    assert authorization(url.replace("://", "://user:secret@")) is None
    shown = Authorization(url)
    assert shown.header() is None
    assert "https" in shown.told
    assert "secret" not in shown.told
    save(f"http://{host}", Entry(plain_http=True))
    assert authorization(url) == "Bearer secret"


def test_the_file_is_for_nobody_else() -> None:
    save(HOST, Entry(token="secret"))
    path = credentials_file.path()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(RemoteDeniedError, match="chmod 600"):
            authorization(HOST)
        with pytest.raises(StoreError, match="chmod 600"):
            save(HOST, Entry(token="other"))


@pytest.mark.parametrize(
    "text",
    [
        'token = "sesame"',
        '["sesame"]\ntoken = "sesame"',
        '["https://user:sesame@host"]\ntoken = "sesame"',
        '["https://host"]\ntoken = "sesame"\nhelper = "sesame"',
        '["https://host"]\ntoken = 7\nuser = "sesame"',
        '["https://host"]\ntoken = "ses ame"\nuser = 7',
        '["https://host"]\ntoken = "sesame\\n"',
        '["https://host"]\npassword = "sesame"',
        '["https://host"]\ntoken = "sesame',
        '["https://host"]\ntoken = "sesame"\nplain_http = "true"',
        '["https://host?a=b"]\ntoken = "sesame"',
    ],
)
def test_a_file_that_is_wrong_is_one_line_without_its_secrets(text: str) -> None:
    path = write(text)
    with pytest.raises(RemoteDeniedError) as caught:
        authorization("https://host/demo")
    with pytest.raises(MalformedError):
        save(HOST, Entry(token="other"))
    said = str(caught.value)
    assert str(path) in said
    assert said.isprintable()
    if '["sesame"]' not in text and "sesame@" not in text:
        assert "sesame" not in said
    assert path.read_text() == text


def test_what_others_wrote_into_the_file_stays() -> None:
    write('# mine\n["https://a"]\ntoken = "one"  # first\n\n["https://host:443/x/"]\ntoken = "old"\n')
    save("https://host/x", Entry(token="new", user="ada"))
    text = credentials_file.path().read_text()
    assert "# mine" in text
    assert "# first" in text
    assert authorization("https://host/x/y") == basic("ada", "new")
    assert "old" not in text
    forget("https://host/x/")
    assert authorization("https://host/x") is None
    assert authorization("https://a/b") == "Bearer one"


def test_forgetting_says_what_there_is() -> None:
    with pytest.raises(RefNotFoundError):
        forget(HOST)
    save(HOST, Entry(token="secret"))
    with pytest.raises(RefNotFoundError, match=f"there is one for {HOST}$"):
        forget(f"{HOST}/demo")
    forget(HOST)
    assert authorization(HOST) is None


@pytest.mark.parametrize(
    "entry",
    [
        Entry(token=""),
        Entry(token="a b"),
        Entry(token="a\r\nX: y"),
        Entry(token="größe"),
        Entry(token="x", helper="y"),
        Entry(token="x\0", user="u"),
        Entry(token="x", user="u:v"),
        Entry(token="x", user="u\n"),
    ],
)
def test_what_cannot_be_sent_is_not_kept(entry: Entry) -> None:
    with pytest.raises(UsageError) as caught:
        save(HOST, entry)
    assert str(caught.value).isprintable()
    assert not credentials_file.path().exists()


def test_password_of_a_url_goes_into_the_file() -> None:
    assert keep("https://ada:s%2Fecret@models.example.org:8443/demo") == "https://models.example.org:8443/demo"
    assert authorization("https://models.example.org:8443/demo") == basic("ada", "s/ecret")
    assert authorization("https://models.example.org:8443/other") is None
    for url in (f"{HOST}/demo", "/srv/models", "s3://bucket/a", "file:///srv/a@b"):
        assert keep(url) == url


# Helpers


def helper(tmp_path: Path, script: str) -> str:
    path = tmp_path / "help me"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return f"'{path}' now"


def test_the_last_line_of_a_helper_is_the_token(tmp_path: Path) -> None:
    script = f'read url; echo "$1 $url" > "{tmp_path}/asked"; echo unlocked; echo; echo token-7; echo'
    save(HOST, Entry(helper=helper(tmp_path, script)))
    assert authorization(f"{HOST}:443/team/llm") == "Bearer token-7"
    assert (tmp_path / "asked").read_text() == f"now {HOST}/team/llm\n"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo sesame; exit 3", "status 3"),
        ("true", "printed nothing"),
        ("echo 'ses ame'", "without blanks"),
        ("echo sesame >&2; false", "status 1"),
    ],
)
def test_helper_that_fails_is_one_line(
    tmp_path: Path, script: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    save(HOST, Entry(helper=helper(tmp_path, script)))
    with pytest.raises(RemoteDeniedError, match=said) as caught:
        authorization(HOST)
    text = str(caught.value) + "".join(capfd.readouterr())
    assert "sesame" not in text
    assert "ses ame" not in text
    assert HOST in str(caught.value)


def test_helper_that_is_not_there() -> None:
    save(HOST, Entry(helper="/does/not/exist"))
    with pytest.raises(RemoteDeniedError, match="cannot be run: No such file"):
        authorization(HOST)


def test_helper_that_hangs_ends_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "HELPER_S", 0.3)
    save(HOST, Entry(helper=helper(tmp_path, f'sleep 600 & echo $! > "{tmp_path}/child"; wait')))
    with pytest.raises(RemoteDeniedError, match="did not answer"):
        authorization(HOST)
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.02)
    os.kill(child, 9)
    pytest.fail("the child lives on")


def test_a_refused_token_is_looked_for_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_RENEW_S", 0.0)
    save(HOST, Entry(token="old"))
    shown = Authorization(f"{HOST}/demo")
    assert shown.header() == "Bearer old"
    assert not shown.renew("Bearer old")
    save(HOST, Entry(token="new"))
    assert shown.renew("Bearer old")
    assert shown.header() == "Bearer new"
    assert shown.renew("Bearer old")


def test_a_helper_is_not_run_for_every_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "_RENEW_S", 600.0)
    save(HOST, Entry(helper=helper(tmp_path, f'echo asked >> "{tmp_path}/asked"; echo token-7')))
    shown = Authorization(f"{HOST}/demo")
    assert shown.header() == "Bearer token-7"
    assert not shown.renew("Bearer token-7")
    assert (tmp_path / "asked").read_text() == "asked\n"
