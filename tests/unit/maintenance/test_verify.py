from __future__ import annotations

from pathlib import Path

import pytest

from shardfs.formats.commit import Commit
from shardfs.formats.ids import CommitId, Kind, TreeId, chunk_id
from shardfs.maintenance.verify import verify
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests import stores
from tests.stores import CHUNK_SIZE, FolderSource, commit, flip, noise
from tests.unit.maintenance.conftest import check, objects_of

DATA = noise(1, 10 * CHUNK_SIZE)


@pytest.fixture
def tip(store: Store) -> CommitId:
    """Two commits."""
    commit(store, {"dir/model.bin": DATA, "small": b"text" * 100})
    return commit(store, {"dir/model.bin": DATA, "new": b"other" * 100}, attachments={"log.txt": b"line\n" * 50})


def _pack_of(store: Store, id_: bytes) -> Path:
    return store.layout.pack(store.find(id_)[0].pack)


def test_sound(store: Store, tip: CommitId) -> None:
    progress: list[tuple[int, int | None]] = []
    report = verify(
        store, objects_of(store), Reader(store), progress=lambda done, total, _: progress.append((done, total))
    )
    assert report.ok
    assert (report.packs, report.commits, report.refs, report.chunks) == (2, 2, 1, 13)
    assert report.read_bytes == sum(store.index.packs().values())
    assert progress[-1] == (report.read_bytes, report.read_bytes)
    assert list(store.layout.root.rglob("*-wal")) or report.ok


def test_a_damaged_chunk_names_file_commit_and_pack(store: Store, tip: CommitId) -> None:
    bad = chunk_id(DATA[CHUNK_SIZE : 2 * CHUNK_SIZE])
    location = store.find(bad)[0]
    flip(store.layout.pack(location.pack), location.entry.offset + 5)
    report = check(store)
    assert not report.ok
    found = next(p for p in report.problems if p.kind == "chunk")
    assert (found.object, found.file, found.pack) == (bad.hex(), "dir/model.bin", location.pack.hex())
    assert found.commit is not None
    assert {p.kind for p in report.problems} == {"chunk", "pack"}


def test_everything_is_found_at_once(store: Store, tip: CommitId) -> None:
    first = objects_of(store).commit(tip).parents[0]
    tree = objects_of(store).commit(tip).tree
    for id_ in (first, tree, chunk_id(DATA[:CHUNK_SIZE]), chunk_id(b"line\n" * 50)):
        location = store.find(id_)[0]
        flip(store.layout.pack(location.pack), location.entry.offset + 3)
    store.refs.move("refs/heads/extra", None, tip)
    store.layout.ref("refs/heads/extra").write_bytes(b"nonsense\n")
    store.layout.head.write_bytes(b"")
    report = check(store)
    kinds = {p.kind for p in report.problems}
    assert {"commit", "tree", "chunk", "ref", "pack"} <= kinds
    assert {p.object for p in report.problems if p.kind == "ref"} == {"refs/heads/extra", "HEAD"}
    assert any(p.file == "attachments:log.txt" for p in report.problems)
    assert any(p.object == first.hex() for p in report.problems)


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "trailer", "header", "table"])
def test_damaged_pack_files(store: Store, tip: CommitId, damage: str) -> None:
    path = _pack_of(store, chunk_id(DATA[:CHUNK_SIZE]))
    data = path.read_bytes()
    match damage:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(data[:-1])
        case "trailer":
            flip(path, len(data) - 3)
        case "header":
            flip(path, 3)
        case "table":
            flip(path, len(data) - 80)
    report = check(store)
    assert any(p.kind == "pack" and p.pack == path.stem for p in report.problems)
    if damage in ("missing", "empty"):
        assert any(p.file == "dir" for p in report.problems)


def test_lost_objects(store: Store, tip: CommitId) -> None:
    stores.sql(store, "DELETE FROM packs")
    stores.sql(store, "DELETE FROM copies")
    store.layout.ref("refs/heads/main").write_bytes(bytes(32).hex().encode() + b"\n")
    report = check(store)
    [problem] = report.problems
    assert (problem.kind, problem.object) == ("commit", bytes(32).hex())
    assert "refs/heads/main names it" in problem.problem


def test_a_wrong_index(store: Store, tip: CommitId) -> None:
    stores.sql(store, "UPDATE entries SET offset = offset + 1 WHERE offset = 16")
    report = check(store)
    assert {p.kind for p in report.problems} == {"index"}


def test_remote_chunks_are_counted(store: Store, tip: CommitId, tmp_path: Path) -> None:
    lazy = Store.create(tmp_path / "lazy")
    stores.know_remote_packs(lazy, store)
    with lazy.batch() as batch:
        for pack, entry in stores.local_entries(store):
            if entry.kind is not Kind.CHUNK:
                batch.copy(entry, store.read(next(c for c in store.find(entry.id) if c.pack == pack)).payload)  # type: ignore[arg-type]
    lazy.refs.move("refs/heads/main", None, tip)
    report = check(lazy)
    assert report.ok
    assert report.remote_chunks == report.chunks == 13
    source = FolderSource(store)
    assert verify(lazy, objects_of(lazy), Reader(lazy, remote=lambda _: source), remote=True).ok
    source.lies = 10_000
    report = verify(lazy, objects_of(lazy), Reader(lazy, remote=lambda _: source), remote=True)
    assert {p.file for p in report.problems} == {"dir/model.bin", "new", "small", "attachments:log.txt"}
    lazy.close()


def test_an_object_of_a_newer_version_is_a_problem_among_others(store: Store, tip: CommitId) -> None:
    newer = b'{"type":"tree","version":2}'
    with store.batch() as batch:
        tree = TreeId(batch.put(Kind.TREE, newer))
        value = Commit(tree, (tip,), "a", 0, "")
        batch.put(Kind.COMMIT, value.to_bytes())
    store.refs.move("refs/heads/main", tip, value.id)
    report = check(store)
    [problem] = report.problems
    assert (problem.kind, problem.object, problem.commit) == ("tree", tree.hex(), value.id.hex())
    assert report.commits == 3


def test_given_commits(store: Store, tip: CommitId) -> None:
    first = objects_of(store).commit(tip).parents[0]
    report = verify(store, objects_of(store), Reader(store), commits=[first])
    assert report.commits == 1
