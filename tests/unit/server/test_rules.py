"""The file of rules."""

from __future__ import annotations

import pytest

from shardfs.errors import MalformedError
from shardfs.server.rules import Rules, parse_rules
from shardfs.server.tokens import Permission


def test_the_narrowest_section_that_says_something_counts() -> None:
    rules = parse_rules(
        b'[default]\nquota = "1G"\n'
        b'[repository."*"]\nquota = "2G"\n'
        b'[repository."team/*"]\nanonymous = "read"\nquota = 300\n'
        b'[repository."team/llm"]\nanonymous = "none"\n'
    )
    assert (rules.anonymous("team/x"), rules.quota("team/x")) == (Permission.READ, 300)
    assert (rules.anonymous("team/llm"), rules.quota("team/llm")) == (Permission.NONE, 300)
    assert (rules.anonymous("other"), rules.quota("other")) == (None, 2 << 30)
    assert rules.lets_anybody_in()


def test_nothing_said() -> None:
    for rules in (Rules(), parse_rules(b""), parse_rules(b"[default]\n")):
        assert rules.anonymous("a") is None
        assert rules.quota("a") is None
        assert not rules.lets_anybody_in()
    assert parse_rules(b'[default]\nquota = "1G"').quota("a") == 1 << 30


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "not TOML"), ("\ud800", "not TOML"), ("[defaults]", "defaults"), ("repository = 1", "repository"),
        ("[repository.'../x']", "not a repository"), ("[default]\nanonymous = true", "none, read, write, admin"),
        ("[default]\nanonymous = 'Read'", "'Read'"), ("[default]\nquota = 'much'", "not a size"),
        ("[default]\nquota = -1", "not a size"), ("[default]\nquta = 1", "quota"), ("default = 1", "default"),
        ("[repository]\nx = 1", "repository"), ("[default]\nanonymous = ['read']", "anonymous"),
    ],
)  # fmt: skip
def test_what_is_not_understood(text: str, said: str) -> None:
    with pytest.raises(MalformedError, match=said) as found:
        parse_rules(text.encode("utf-8", "surrogatepass"))
    assert "\n" not in str(found.value)
