"""Which nodes are one for the kernel, and when they are forgotten."""

from __future__ import annotations

from shardfs.mount.kernel.messages import MKDIR_IN, ROOT_ID, Opcode
from shardfs.mount.vfs import Vfs
from tests.fuse_kernel import Kernel
from tests.memory_repository import MemorySource


def versions(source: MemorySource) -> list[str]:
    """Paths of the two commits, oldest first."""
    return [f"commits/{version.commit.hex()}" for version in source.versions()]


def test_a_file_is_one_node_in_all_versions_of_the_same_content(kernel: Kernel, source: MemorySource) -> None:
    old, new = versions(source)
    source.put({(b"a.txt",): b"two\n", (b"e",): None, (b"empty",): b"", (b"more",): b"1"}, "third")
    third = versions(source)[2]
    assert kernel.lookup(f"{new}/a.txt") == kernel.lookup(f"{third}/a.txt")
    assert kernel.lookup(f"{old}/a.txt") != kernel.lookup(f"{new}/a.txt")


def test_the_same_content_at_another_path_is_another_node(kernel: Kernel, source: MemorySource) -> None:
    """So that a path has one time as long as it has one content, and another one after."""
    source.put({(b"a.txt",): b"x", (b"b.txt",): b"x", (b"d", b"a.txt"): b"x"}, "copies")
    commit = versions(source)[2]
    assert len({kernel.lookup(f"{commit}/{name}") for name in ("a.txt", "b.txt", "d/a.txt")}) == 3


def test_the_executable_bit_makes_another_node(kernel: Kernel, source: MemorySource) -> None:
    source.put({(b"run",): b"x"}, "not yet")
    source.put({(b"run",): (b"x", True)}, "executable")
    _, _, before, after = versions(source)
    assert kernel.lookup(f"{before}/run") != kernel.lookup(f"{after}/run")


def test_a_directory_is_another_node_at_each_place(kernel: Kernel, source: MemorySource) -> None:
    """The kernel moves a directory that it finds at a second place, and with it whoever works there."""
    source.put({(b"d", b"f"): b"1"}, "with d")
    source.put({(b"d", b"f"): b"1", (b"x",): b"1"}, "with the same d")
    _, _, third, fourth = versions(source)
    assert kernel.lookup(f"{third}/d") != kernel.lookup(f"{fourth}/d")
    assert kernel.lookup(f"{third}/d/f") == kernel.lookup(f"{fourth}/d/f")
    assert kernel.lookup(third[:20]) != kernel.lookup(third)
    assert kernel.lookup(third) == kernel.lookup(third)


def test_a_link_is_another_node_when_it_moves(kernel: Kernel, source: MemorySource, vfs: Vfs) -> None:
    before = kernel.lookup("latest")
    assert kernel.lookup("latest") == before
    source.put({(b"a",): b"1"}, "third")
    vfs.expire()
    assert kernel.lookup("latest") != before


def test_nodes_are_kept_until_the_kernel_forgets_them_as_often_as_it_was_told(
    kernel: Kernel, source: MemorySource
) -> None:
    path = f"{versions(source)[1]}/a.txt"
    known = kernel.lookup(path)
    assert kernel.lookup(path) == known
    size = len(kernel.table)
    kernel.table.forget(known, 1)
    assert kernel.table.get(known).lookups == 1
    kernel.table.forget(known, 1)
    assert len(kernel.table) == size - 1
    assert kernel.lookup(path) not in (known, 0)  # numbers are not used again


def test_a_node_that_was_replaced_is_kept_beside_the_new_one(kernel: Kernel) -> None:
    kernel.ask(Opcode.MKDIR, kernel.lookup("staging"), MKDIR_IN.pack(0o755, 0) + b"d\0")
    old = kernel.table.get(kernel.lookup("staging/d"))
    kernel.table.renew(old)
    new = kernel.lookup("staging/d")
    assert new != old.id
    assert kernel.table.get(old.id) is old
    kernel.table.forget(old.id, old.lookups)
    assert kernel.lookup("staging/d") == new


def test_the_root_is_never_forgotten(kernel: Kernel) -> None:
    kernel.table.forget(ROOT_ID, 1000)
    assert kernel.table.get(ROOT_ID).node.is_dir
