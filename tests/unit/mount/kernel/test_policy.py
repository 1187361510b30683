from __future__ import annotations

import pytest

from shardfs.mount.kernel.policy import BRIEF, FOREVER, NEVER, absence, attr_lifetime, lifetime
from shardfs.mount.refs import CHECK_EVERY_S
from shardfs.mount.vfs import Vfs
from tests.fuse_kernel import Kernel
from tests.memory_repository import MemorySource


@pytest.mark.parametrize(
    ("parent", "name", "entry", "attr"),
    [
        ("commits/TIP", "a.txt", FOREVER, FOREVER),
        ("commits/TIP", "e", FOREVER, FOREVER),
        ("commits", "TIP", BRIEF, FOREVER),
        ("versions", "0001-initial", BRIEF, FOREVER),
        (".shardfs", "stats.json", BRIEF, NEVER),
        ("staging", "a.txt", BRIEF, BRIEF),
        ("staging", "e", BRIEF, BRIEF),
    ],
)
def test_what_can_change_is_kept_briefly(
    vfs: Vfs, kernel: Kernel, source: MemorySource, parent: str, name: str, entry: float, attr: float
) -> None:
    parent, name = (part.replace("TIP", source.refs["main"].hex()) for part in (parent, name))
    assert lifetime(vfs, kernel.known(parent), kernel.known(f"{parent}/{name}")) == (entry, attr)


def test_the_parts_of_the_root_stay(vfs: Vfs, kernel: Kernel) -> None:
    root = kernel.table.root
    assert lifetime(vfs, root, kernel.known("versions")).entry == FOREVER
    assert lifetime(vfs, root, kernel.known("staging")).entry == FOREVER
    assert lifetime(vfs, root, kernel.known("latest")).entry == BRIEF
    assert attr_lifetime(vfs, root) == BRIEF


def test_only_commits_never_get_what_they_do_not_have(kernel: Kernel, source: MemorySource) -> None:
    assert absence(kernel.known(f"commits/{source.refs['main'].hex()}")) == FOREVER
    assert absence(kernel.known("staging")) == absence(kernel.table.root) == NEVER


def test_changes_by_others_are_seen_within_a_second() -> None:
    assert BRIEF + CHECK_EVERY_S < 1
