"""The schema of `area.sqlite`. Spec: docs/design/staging.md, "Rows"."""

from __future__ import annotations

from typing import Final

VERSION: Final = 3  # PRAGMA user_version

# What unfinished files would become if nobody has them open any more, as of the last close(2) of a descriptor.
# written_ns: modification time of files/<ino>.<wgen> then, which tells whether anybody wrote on; 0 without such a file.
_CLOSINGS: Final = """CREATE TABLE closings (
    ino        INTEGER PRIMARY KEY,
    wgen       INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    mtime_ns   INTEGER NOT NULL,
    written_ns INTEGER NOT NULL,
    below      BLOB
)"""

_STATEMENTS: Final = (
    # One row per node that differs from the base tree, plus the directories above such nodes.
    """CREATE TABLE nodes (
        ino       INTEGER PRIMARY KEY,
        parent    INTEGER NOT NULL,  -- 0 above the root
        name      BLOB    NOT NULL,
        kind      INTEGER NOT NULL,  -- NodeKind
        mode      INTEGER NOT NULL,  -- permission bits only
        mtime_ns  INTEGER NOT NULL,
        ctime_ns  INTEGER NOT NULL,
        size      INTEGER NOT NULL,  -- of the stable content; of a link's target
        content   BLOB,              -- stable content by reference: 'C' or 'M' + id, '' when empty
        base      BLOB,              -- directory: the tree that shows through
        target    BLOB,              -- link
        gen       INTEGER,           -- stable content: the first `size` bytes of files/<ino>.<gen>
        wgen      INTEGER,           -- generation with unfinished writes; = gen while only appending
        last_gen  INTEGER NOT NULL,  -- highest generation number given out
        version   INTEGER NOT NULL,  -- another one for another stable content; never 0
        settled   INTEGER NOT NULL,  -- 1: says the same as the base tree of its parent
        stray     INTEGER NOT NULL,  -- 1: `ino` is derived from a place where the node no longer is
        below     BLOB,              -- committed content that shows where `gen` was not written to: layers.Below
        live      INTEGER NOT NULL DEFAULT 0  -- 1: the kernel may still write to `gen` itself
    )""",
    "CREATE UNIQUE INDEX nodes_place ON nodes (parent, name)",
    "CREATE INDEX nodes_changed ON nodes (ino) WHERE settled = 0",
    "CREATE INDEX nodes_settled ON nodes (ino) WHERE settled = 1",
    "CREATE INDEX nodes_writing ON nodes (ino) WHERE wgen IS NOT NULL",
    "CREATE INDEX nodes_stray ON nodes (ino) WHERE stray = 1",
    _CLOSINGS,
    "CREATE TABLE xattrs (ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL, PRIMARY KEY (ino, name))",
    # base_time_ns: modification time of entries without a row. sweep: 1 = files/ may hold files that no row names.
    "CREATE TABLE facts (key TEXT PRIMARY KEY, value INTEGER NOT NULL)",
)

_UPGRADES: Final = {  # by version, what makes the next one of it
    1: ("ALTER TABLE nodes ADD COLUMN below BLOB", "ALTER TABLE nodes ADD COLUMN live INTEGER NOT NULL DEFAULT 0"),
    2: (_CLOSINGS,),
}


def statements(version: int) -> list[str]:
    """What brings a database of an older version, 0 for an empty one, to this one."""
    if not version:
        return list(_STATEMENTS)
    return [statement for older in range(version, VERSION) for statement in _UPGRADES[older]]
