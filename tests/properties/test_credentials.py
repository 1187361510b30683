"""For which URLs a secret is meant: never for another host, port, scheme, or a path that only begins alike."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from shardfs.remotes.address import Address, address

_names = st.text(alphabet="abAB._-~%/ é", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))
_parts = st.lists(_names, max_size=4).map(tuple)
_hosts = st.sampled_from(["a.example", "b.example", "xa.example", "a.example.b", "127.0.0.1", "::1"])
_places = st.builds(Address, st.sampled_from(["http", "https"]), _hosts, st.sampled_from([80, 443, 8750]), _parts)


@given(_places)
def test_an_address_is_read_back_as_it_was_written(place: Address) -> None:
    assume(not any(piece in (".", "..") for part in place.parts for piece in part.split("/")))
    assert address(str(place)) == place


@given(_places, _places)
def test_only_what_lies_below_is_covered(prefix: Address, place: Address) -> None:
    below = place.parts[: len(prefix.parts)] == prefix.parts
    same = (prefix.scheme, prefix.host, prefix.port) == (place.scheme, place.host, place.port)
    assert prefix.covers(place) == (same and below)


@given(_places, _parts, _names)
def test_a_longer_name_is_another_one(place: Address, more: tuple[str, ...], tail: str) -> None:
    assert place.covers(place._replace(parts=place.parts + more))
    if place.parts:
        longer = (*place.parts[:-1], place.parts[-1] + tail)
        assert not place.covers(place._replace(parts=longer))
        assert not place.covers(place._replace(parts=place.parts[:-1]))
