"""How the frozen files beside this program were made, once, by the first version of the formats.

`python -m tests.golden.make FOLDER` writes them again into another folder. The frozen files are never replaced: a
program that cannot read them, or writes canonical bytes of another form, is wrong.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

from shardfs.codecs.registry import RAW, ZSTD
from shardfs.formats import ref
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, PackId, TreeId, chunk_id
from shardfs.formats.manifest import ChunkRef, Manifest, Media
from shardfs.formats.ref import Head, LogLine, PackSize
from shardfs.formats.tree import EMPTY_TREE, DirEntry, FileEntry, LinkEntry, Tree
from shardfs.store.layout import Layout
from shardfs.store.packs import FinishedPack, PackWriter
from tests.stores import noise

WEIGHTS = noise(1, 600)
TEXT = b"golden " * 40
TIME_US = 1_700_000_000_000_000


def manifest() -> Manifest:
    """A file of two chunks."""
    chunks = (ChunkRef(chunk_id(WEIGHTS), len(WEIGHTS)), ChunkRef(chunk_id(TEXT), len(TEXT)))
    return Manifest(len(WEIGHTS) + len(TEXT), chunks, Media("safetensors", "pytorch", 2, 300))


def inner_tree() -> Tree:
    """A directory with every kind of entry."""
    return Tree.of(
        [
            FileEntry(b"empty", 0),
            FileEntry(b"run.sh", len(TEXT), executable=True, chunk=chunk_id(TEXT)),
            FileEntry(b"caf\xc3\xa9", len(TEXT), chunk=chunk_id(TEXT)),
            FileEntry(b"not utf-8 \xff", len(WEIGHTS), chunk=chunk_id(WEIGHTS)),
            FileEntry(b"model.safetensors", manifest().size, manifest=manifest().id),
            DirEntry(b"nothing", EMPTY_TREE.id),
            LinkEntry(b"latest", b"../model"),
            LinkEntry(b"latest \xfe", b"\xff"),
        ]
    )


def root_tree() -> Tree:
    """The content of both commits."""
    return Tree.of([DirEntry(b"weights", inner_tree().id), FileEntry(b"README", len(TEXT), chunk=chunk_id(TEXT))])


def first_commit() -> Commit:
    """A commit without parents."""
    return Commit(EMPTY_TREE.id, (), "Ann <ann@example.org>", TIME_US, "initial")


def second_commit() -> Commit:
    """A commit with everything that a commit can have."""
    return Commit(
        root_tree().id,
        (first_commit().id,),
        "Ann Ödegaard <ann@example.org>",
        TIME_US + 1,
        "epoch 1\n\nloss = 0.25 €\n",
        {"epoch": 1, "loss": 0.25, "tags": ["a", None, True], "nested": {"z": -5, "a": 1e21}},
        {"code": {"git": "0" * 40, "dirty": False}, "program": "shardfs 0.1.0"},
        inner_tree().id,
    )


def objects() -> dict[str, tuple[Kind, bytes]]:
    """All objects by the name of their file."""
    return {
        "empty.tree": (Kind.TREE, EMPTY_TREE.to_bytes()),
        "inner.tree": (Kind.TREE, inner_tree().to_bytes()),
        "root.tree": (Kind.TREE, root_tree().to_bytes()),
        "model.manifest": (Kind.MANIFEST, manifest().to_bytes()),
        "first.commit": (Kind.COMMIT, first_commit().to_bytes()),
        "second.commit": (Kind.COMMIT, second_commit().to_bytes()),
    }


def write_pack(layout: Layout) -> FinishedPack:
    """A pack with both codecs and all kinds. Its payloads and its table hold what zstd made on that day."""
    writer = PackWriter(layout)
    writer.add(Kind.CHUNK, chunk_id(WEIGHTS), RAW.code, WEIGHTS, len(WEIGHTS), ())
    writer.add(Kind.CHUNK, chunk_id(TEXT), ZSTD.code, ZSTD.encode(TEXT), len(TEXT), ())
    parsed: dict[str, Callable[[bytes], Tree | Manifest | Commit]] = {
        "tree": Tree.from_bytes,
        "manifest": Manifest.from_bytes,
        "commit": Commit.from_bytes,
    }
    for name, (kind, data) in objects().items():
        id_ = parsed[name.split(".")[1]](data).id
        payload = ZSTD.encode(data)
        small = len(payload) < len(data)
        writer.add(kind, id_, ZSTD.code if small else RAW.code, payload if small else data, len(data), ())
    return writer.finish()


def write_store(layout: Layout) -> None:
    """A whole store with one pack, a branch and a tag, by hand: every byte is in sight."""
    pack = write_pack(layout)
    tip = second_commit().id
    refs = {"refs/heads/main": tip, "refs/tags/v1": first_commit().id}
    lines = [
        LogLine(None, first_commit().id, TIME_US, "Ann", "commit: initial"),
        LogLine(first_commit().id, tip, TIME_US + 1, "Ann", "commit: epoch 1"),
    ]
    files = {
        layout.config: b"format = 1\n",
        layout.head: Head("refs/heads/main").to_bytes(),
        layout.info_refs: ref.refs_to_bytes("refs/heads/main", refs),
        layout.info_packs: ref.packs_to_bytes([PackSize(pack.id, pack.size)]),
        layout.log("refs/heads/main"): b"".join(line.to_bytes() for line in lines),
        **{layout.ref(name): ref.ref_to_bytes(commit) for name, commit in refs.items()},
    }
    for path, data in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    layout.tmp.rmdir()


def main() -> None:
    """Write all files below the folder that the first argument names."""
    folder = Path(sys.argv[1])
    (folder / "objects").mkdir(parents=True)
    for name, (_, data) in objects().items():
        (folder / "objects" / name).write_bytes(data)
    (folder / "store").mkdir()
    write_store(Layout(folder / "store"))
    ids: dict[str, ChunkId | CommitId | ManifestId | PackId | TreeId] = {
        "weights": chunk_id(WEIGHTS),
        "text": chunk_id(TEXT),
        "empty.tree": EMPTY_TREE.id,
        "inner.tree": inner_tree().id,
        "root.tree": root_tree().id,
        "model.manifest": manifest().id,
        "first.commit": first_commit().id,
        "second.commit": second_commit().id,
    }
    text = json.dumps({name: id_.hex() for name, id_ in ids.items()}, indent=2)
    (folder / "ids.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
