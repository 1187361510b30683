"""What a reader will want next."""

from __future__ import annotations

from typing import NamedTuple


class Want(NamedTuple):
    """What a reader will want next; either range may be empty.

    Attributes:
        reader: whose end the bytes are ahead of; for `cancel`.
        distance: bytes between that end and the first range.
        near: ranges to decode, in the order in which they will be wanted.
        far: ranges behind those, to bring from a remote.
    """

    reader: object
    distance: int
    near: tuple[tuple[int, int], ...]
    far: tuple[tuple[int, int], ...]
