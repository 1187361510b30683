"""What comes from outside or from an editor is understood or refused, and nothing else happens."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from shardfs.errors import MalformedError, UsageError
from shardfs.server.access import _shown
from shardfs.server.limits import network
from shardfs.server.patterns import check_pattern, matches
from shardfs.server.routes import is_repository, parse_path
from shardfs.server.rules import parse_rules
from shardfs.server.tokens import find, parse_tokens

NAMES = st.from_regex(r"[a-z]{1,3}(/[a-z]{1,3}){0,3}", fullmatch=True).filter(is_repository)


@given(st.text() | st.binary().map(lambda data: data.decode("latin-1")), st.sampled_from(["", "Basic ", "Bearer "]))
def test_any_header_is_a_token_or_none(text: str, scheme: str) -> None:
    shown = _shown(scheme + text)
    assert shown is None or find({}, shown) is None


@given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_file_is_understood_or_refused(data: bytes) -> None:
    with suppress(MalformedError):
        parse_tokens(data)
    with suppress(MalformedError):
        parse_rules(data)


@given(st.text(alphabet="ab/.%*\\ \0é_-", max_size=20))
def test_no_path_or_pattern_names_the_folder_of_the_server(text: str) -> None:
    with suppress(UsageError):
        assert not matches(check_pattern(text), ".server") or text == "*"
    with suppress(MalformedError):
        target = parse_path(f"/{text}/.server/info/refs")
        assert target is None or not target.repository.startswith(".server")


@given(NAMES, NAMES)
def test_a_pattern_is_exact_or_below(first: str, second: str) -> None:
    assert matches(first, second) is (first == second)
    inside = second.split("/")[: first.count("/") + 1] == first.split("/")
    assert matches(f"{first}/*", second) is (inside and first != second)


@given(st.ip_addresses().map(str))
def test_neighbours_are_one_party(address: str) -> None:
    found = network(address)
    assert network(found.partition("/")[0]) == found
