"""Nodes as the kernel learns of them."""

from __future__ import annotations

from shardfs.errors import FsError
from shardfs.mount.kernel import policy
from shardfs.mount.kernel.encode import Encoder
from shardfs.mount.kernel.table import Known, Table
from shardfs.mount.nodes import Attr, Node
from shardfs.mount.vfs import Vfs


class Entries:
    """Tells the kernel of entries, and counts what it was told."""

    def __init__(self, vfs: Vfs, table: Table, encoder: Encoder) -> None:
        self._vfs = vfs
        self._table = table
        self._encoder = encoder

    def tell(self, parent: Known, name: bytes, node: Node, attr: Attr | None = None) -> tuple[Known, bytes]:
        """An entry of a directory as the kernel takes it; whoever cannot send it has to `forget` the node."""
        vfs = self._vfs
        committed = vfs.is_committed(node)
        target = vfs.readlink(node) if node.is_link and not committed else None
        attr = attr or vfs.getattr(node)
        known = self._table.add(parent, name, node, target)
        if known.is_committed and known.node is not node:
            attr = vfs.getattr(known.node)  # one node has one time: that of the commit that it was first seen in
        return known, self._encoder.entry_out(known.id, attr, policy.lifetime(vfs, parent, known))

    def forget(self, known: Known) -> None:
        """Take back what was told."""
        self._table.forget(known.id, 1)

    def attr(self, known: Known) -> bytes:
        """Attributes of a node as the kernel takes them, also of an open file without a name or with another's."""
        vfs = self._vfs
        handle = next(reversed(known.handles), None)
        if known.is_replaced and handle is not None:
            attr = vfs.fgetattr(handle)
        else:
            try:
                attr = vfs.getattr(known.node)
            except FsError:
                if handle is None:
                    raise
                attr = vfs.fgetattr(handle)
        return self._encoder.attr_out(attr, policy.attr_lifetime(vfs, known))
