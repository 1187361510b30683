"""One thing that is wrong in a store."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and with what; names that do not apply are None.

    Attributes:
        kind: "pack", "index", "ref", "commit", "tree", "manifest" or "chunk".
        object: hexadecimal id, or the name of a ref.
        problem: one line.
        file: path in a version that cannot be read because of it; of an attachment, after "attachments:".
        commit: hexadecimal id of a version that needs it.
        pack: hexadecimal id of the pack that holds it.
    """

    kind: str
    object: str
    problem: str
    file: str | None = None
    commit: str | None = None
    pack: str | None = None
