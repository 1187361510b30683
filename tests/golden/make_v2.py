"""How the frozen files in `v2` were made, once: a store of packs of version 2, with an entry of every codec.

`python -m tests.golden.make_v2 FOLDER` writes such a store into another folder. The frozen one is never replaced: a
program that cannot read it is wrong. One that encodes otherwise is not.
"""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

from shardfs.codecs import elements
from shardfs.codecs.elements import Element
from shardfs.codecs.registry import DELTA1, DELTA2, PATCH, PLANES, RAW, ZSTD, Encoded
from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, Kind, TreeId, chunk_id
from shardfs.formats.tree import FileEntry, Tree
from shardfs.store.store import Batch, Store
from tests.golden.make import TIME_US
from tests.stores import noise

COUNT = 800  # elements in a chunk
ELEMENTS = (
    elements.INT8,
    elements.INT16,
    elements.INT32,
    elements.INT64,
    elements.FLOAT8,
    elements.FLOAT16,
    elements.BFLOAT16,
    elements.FLOAT32,
    elements.FLOAT64,
)
TEXT = b"".join(b"%d golden lines\n" % number for number in range(99))
NOISE = noise(3, 300)
FLOATS = {  # bits of the mantissa, an exponent
    "float8": (3, 5),
    "float16": (10, 12),
    "bfloat16": (7, 120),
    "float32": (23, 120),
    "float64": (52, 1015),
}


def value(element: Element, chance: int, version: int) -> int:
    """One of small numbers, of which one in five grows with each version, or of weights that all move a little."""
    if element.name not in FLOATS:
        return chance % 11 + version * (chance % 5 == 0)
    mantissa, exponent = FLOATS[element.name]
    step = (chance >> 50) % 9 << max(0, mantissa - 14)
    swerve = (chance >> 54) % 5 << max(0, mantissa - 16) if version == 2 else 0
    size = (exponent + chance % 3 << mantissa) + (chance >> 2) % (1 << mantissa - 1) + version * step + swerve
    return size | (chance >> 63 << 8 * element.width - 1 if element is not elements.FLOAT8 else 0)


def values(element: Element, version: int) -> bytes:
    """A tensor, and where elements are longer than a byte a tail that is none."""
    chances = struct.unpack(f"<{COUNT}Q", noise(10 + element.code, 8 * COUNT))
    made = b"".join(value(element, chance, version).to_bytes(element.width, "little") for chance in chances)
    return made + b"\x07" * (element.width > 1)


def contents() -> dict[str, bytes]:
    """All files by name: three versions for each kind of element, a text and a change of it, noise."""
    found = {f"{e.name}.{version}": values(e, version) for e in ELEMENTS for version in range(3)}
    return found | {"text.0": TEXT, "text.1": TEXT.replace(b"7", b"seven"), "noise": NOISE}


def payloads() -> dict[str, Encoded]:
    """How each file is stored."""
    data = contents()
    ids = {name: chunk_id(content) for name, content in data.items()}
    found = {
        "noise": Encoded(RAW.code, NOISE),
        "text.0": Encoded(ZSTD.code, ZSTD.encode(TEXT)),
        "text.1": Encoded(PATCH.code, PATCH.encode(data["text.1"], TEXT), (ids["text.0"],)),
    }
    for e in ELEMENTS:
        zero, one, two = (data[f"{e.name}.{version}"] for version in range(3))
        first, second = ids[f"{e.name}.0"], ids[f"{e.name}.1"]
        found[f"{e.name}.0"] = Encoded(PLANES.code, PLANES.encode(zero, e))
        found[f"{e.name}.1"] = Encoded(DELTA1.code, DELTA1.encode(one, e, zero), (first,))
        found[f"{e.name}.2"] = (
            Encoded(DELTA2.code, DELTA2.encode(two, e, (one, zero)), (second, first))
            if e.predictable
            else Encoded(DELTA1.code, DELTA1.encode(two, e, one), (second,))
        )
    return found


def fill(batch: Batch) -> CommitId:
    """Put everything; returns the commit."""
    data = contents()
    for name, encoded in payloads().items():
        batch.put_encoded(Kind.CHUNK, chunk_id(data[name]), encoded, len(data[name]))
    tree = Tree.of([FileEntry(name.encode(), len(d), chunk=chunk_id(d)) for name, d in data.items()])
    root = TreeId(batch.put(Kind.TREE, tree.to_bytes()))
    return CommitId(batch.put(Kind.COMMIT, Commit(root, (), "Ann <ann@example.org>", TIME_US, "all codecs").to_bytes()))


def main() -> None:
    """Write the store at the path that the first argument names."""
    folder = Path(sys.argv[1])
    store = Store.create(folder)
    with store.batch() as batch:
        tip = fill(batch)
    store.refs.move("refs/heads/main", None, tip, author="Ann", message="commit: all codecs")
    store.close()
    for left in (*folder.glob("index.sqlite*"), *folder.glob("**/*lock")):
        left.unlink()
    for left in (folder / "tmp", folder / "logs"):
        shutil.rmtree(left)


if __name__ == "__main__":
    main()
