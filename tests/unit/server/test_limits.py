"""Whom an address stands for."""

from __future__ import annotations

from shardfs.server.limits import network


def test_networks() -> None:
    assert network("10.0.0.1") != network("10.0.0.2")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1")
    assert network("2001:db8::1") == network("2001:db8::ffff:2")
    assert network("2001:db8::1") != network("2001:db8:0:1::1")
    assert network("fe80::1%eth0") == network("fe80::2")
    assert network("unknown") == "unknown"
