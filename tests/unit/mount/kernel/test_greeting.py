"""What is agreed on with kernels of all ages."""

from __future__ import annotations

import struct

import pytest

from shardfs.errors import MountError
from shardfs.mount.kernel.greeting import MAX_SIZE, Agreement, agree
from shardfs.mount.kernel.messages import Init
from shardfs.mount.options import EngineOptions

EVERYTHING = (1 << 43) - 1
OPTIONS = EngineOptions("source")


def greet(minor: int = 45, offered: int = EVERYTHING, options: EngineOptions = OPTIONS, major: int = 7) -> Agreement:
    """INIT as Linux sends it: since 7.36 with a second word of flags."""
    body = struct.pack("=IIII", major, minor, 128 << 10, offered & 0xFFFFFFFF)
    if minor >= 36:
        body += struct.pack("=I44x", offered >> 32)
    return agree(body, options)


def fields(agreement: Agreement) -> tuple[int, ...]:
    """The answer: major, minor, readahead, flags, background, congestion, write, time, pages, -, flags2, depth."""
    return struct.unpack("=IIIIHHIIHHII24x", agreement.answer)


def test_a_new_kernel_passes_through() -> None:
    found = greet()
    assert Init.PASSTHROUGH in found.abilities
    assert found.can_expire
    *_, upper, depth = fields(found)
    assert (upper, depth) == (Init.PASSTHROUGH >> 32, 1)
    assert fields(found)[3] & Init.EXT


def test_plain_files_on_overlayfs_need_one_level_more() -> None:
    assert fields(greet(options=EngineOptions("source", stacked=True)))[-1] == 2


def test_without_passthrough_nothing_of_it_is_said() -> None:
    found = greet(options=EngineOptions("source", passthrough=False))
    assert Init.PASSTHROUGH not in found.abilities
    assert fields(found)[-2:] == (0, 0)


@pytest.mark.parametrize("minor", [31, 35, 36, 39])
def test_an_older_kernel_gets_only_what_it_offered(minor: int) -> None:
    offered = (1 << 26) - 1
    found = greet(minor, offered)
    assert found.abilities
    assert int(found.abilities) & ~offered == 0
    assert fields(found)[-2:] == (0, 0)
    assert found.can_expire == (minor >= 38)


def test_the_second_word_counts_only_where_the_first_says_so() -> None:
    assert Init.PASSTHROUGH not in greet(offered=EVERYTHING & ~Init.EXT).abilities


@pytest.mark.parametrize(
    "options", [EngineOptions("source", safe=True), EngineOptions("source", safe=True, stacked=True)]
)
def test_a_safe_mount_takes_nothing(options: EngineOptions) -> None:
    found = greet(options=options)
    assert not found.abilities
    _, _, _, flags, _, _, write, _, pages, _, upper, depth = fields(found)
    assert (flags, upper, depth) == (0, 0, 0)
    assert write == pages * 4096 == 128 << 10


def test_a_kernel_that_offers_nothing_gets_small_requests() -> None:
    assert fields(greet(offered=0))[6] == 128 << 10
    assert fields(greet(offered=Init.MAX_PAGES))[6] == MAX_SIZE


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (6, 99)])
def test_a_kernel_that_is_too_old_is_named(major: int, minor: int) -> None:
    with pytest.raises(MountError, match=rf"FUSE {major}\.{minor}, not 7\.31; mount with --engine libfuse"):
        greet(minor, major=major)
