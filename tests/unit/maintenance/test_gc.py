from __future__ import annotations

import os
from pathlib import Path

import pytest

from shardfs.codecs import registry
from shardfs.codecs.registry import Encoded
from shardfs.errors import IntegrityError, NotFoundError, ObjectNotFoundError, RefCorruptedError
from shardfs.formats.ids import ChunkId, Kind, chunk_id
from shardfs.maintenance import roots
from shardfs.maintenance.gc import GcReport, gc
from shardfs.store.packs import list_packs
from shardfs.store.store import Store
from shardfs.transfer.reader import Reader
from tests import stores
from tests.stores import CHUNK_SIZE, XorCodec, commit, flip, noise
from tests.unit.maintenance.conftest import check, make_old, objects_of

DATA = noise(1, 10 * CHUNK_SIZE)
OTHER = noise(2, 10 * CHUNK_SIZE)
XOR = XorCodec()


def collect(store: Store, **options: object) -> GcReport:
    return gc(store, objects_of(store), **options)  # type: ignore[arg-type]


def _forget_logs(store: Store) -> None:
    for path in list(roots.logs(store)):
        path.unlink()


def _waste(store: Store, seed: int = 9, size: int = 10 * CHUNK_SIZE) -> None:
    with store.batch() as batch:
        stores.put_file(batch, b"x", noise(seed, size))


def test_what_nothing_needs_goes(store: Store) -> None:
    commit(store, {"a": DATA})
    _waste(store)
    make_old(store)
    before = sum(list_packs(store.layout).values())
    report = collect(store)
    assert (len(report.dropped), len(report.rewritten), report.problems) == (1, 0, [])
    assert before - report.freed_bytes == sum(list_packs(store.layout).values())
    assert check(store).ok
    assert collect(store).dropped == []


def test_dry_run_changes_nothing(store: Store) -> None:
    commit(store, {"a": DATA})
    _waste(store)
    make_old(store)
    before = sorted(p for p in store.layout.root.rglob("*") if p.is_file())
    report = collect(store, dry_run=True)
    assert len(report.dropped) == 1
    assert report.freed_bytes > 10 * CHUNK_SIZE
    assert sorted(p for p in store.layout.root.rglob("*") if p.is_file()) == before


def test_young_packs_stay(store: Store) -> None:
    _waste(store)
    report = collect(store)
    assert (report.dropped, report.kept_young) == ([], 1)
    assert len(list_packs(store.layout)) == 1
    assert len(collect(store, grace_s=0).dropped) == 1


def test_packs_with_little_use_are_rewritten(store: Store) -> None:
    with store.batch() as batch:
        stores.put_file(batch, b"x", OTHER)
        stores.put_tree(batch, {"a": DATA[: 2 * CHUNK_SIZE]}, {})
    commit(store, {"a": DATA[: 2 * CHUNK_SIZE]})
    make_old(store)
    report = collect(store)
    assert len(report.rewritten) == 1
    assert report.freed_bytes > 9 * CHUNK_SIZE
    assert check(store).ok
    again = collect(store)
    assert (again.dropped, again.rewritten, again.freed_bytes) == ([], [], 0)


def test_deleted_branches_stay_for_the_reflog(store: Store) -> None:
    commit(store, {"a": DATA})
    tip = commit(store, {"b": OTHER}, branch="other")
    store.refs.move("refs/heads/other", tip, None)
    make_old(store)
    assert collect(store).dropped == []
    _forget_logs(store)
    assert len(collect(store).dropped) == 1
    assert check(store).ok


def test_old_reflog_lines_hold_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tip = commit(store, {"b": OTHER}, branch="other")
    store.refs.move("refs/heads/other", tip, None)
    make_old(store)
    monkeypatch.setattr(roots, "REFLOG_AGE_S", -10)
    assert len(collect(store).dropped) == 1


def test_roots_of_the_caller_stay(store: Store) -> None:
    with store.batch() as batch:
        entry = stores.put_file(batch, b"x", DATA)
        chunk = batch.put(Kind.CHUNK, b"staged")
    make_old(store)
    keep = [(Kind.MANIFEST, entry.manifest), (Kind.CHUNK, chunk)]
    report = collect(store, keep=keep)
    assert (report.dropped, report.rewritten, report.live) == ([], [], 12)


def test_bases_of_needed_deltas_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    base, data = bytes(512), noise(6, 512)
    monkeypatch.setattr(registry.RAW, "base_count", 1)
    with store.batch() as batch:
        batch.put_encoded(Kind.CHUNK, chunk_id(base), registry.encode(base), 512)
    with store.batch() as batch:
        batch.put_encoded(Kind.CHUNK, chunk_id(data), Encoded(0, data, (chunk_id(base),)), 512)
    make_old(store)
    report = collect(store, keep=[(Kind.CHUNK, chunk_id(data))])
    assert (report.dropped, report.live) == ([], 2)


def test_bases_of_what_a_push_has_brought_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CODECS, XOR.code, XOR)
    base, data = noise(11, CHUNK_SIZE), noise(12, CHUNK_SIZE)
    _pack_of(store, base, None)
    make_old(store)
    _pack_of(store, data, base)
    assert collect(store).dropped == []
    assert Reader(store).chunk(chunk_id(data), CHUNK_SIZE) == data
    make_old(store)
    assert len(collect(store).dropped) == 2


@pytest.mark.parametrize("damage", ["ref", "head", "commit", "missing tree", "no log"])
def test_fails_closed(store: Store, damage: str) -> None:
    tip = commit(store, {"a/b": DATA})
    commit(store, {"a/b": OTHER})
    _waste(store)
    make_old(store)
    objects = objects_of(store)
    if damage == "ref":
        store.layout.ref("refs/heads/main").write_bytes(b"")
    elif damage == "head":
        store.layout.head.unlink()
    elif damage == "no log":
        path = store.layout.log("refs/heads/main")
        path.unlink()
        path.symlink_to(path)
    else:
        wanted = tip if damage == "commit" else objects.commit(tip).tree
        objects = objects_of(store)
        pack, entry = next((p, e) for p, e in stores.local_entries(store) if e.id == wanted)
        flip(store.layout.pack(pack), entry.offset + 2)
    before = list_packs(store.layout)
    if damage == "no log":
        gc(store, objects)
    else:
        with pytest.raises((RefCorruptedError, IntegrityError, NotFoundError)):
            gc(store, objects)
        assert list_packs(store.layout) == before


def test_a_missing_root_stops_it(store: Store) -> None:
    _waste(store)
    make_old(store)
    with pytest.raises(ObjectNotFoundError):
        collect(store, keep=[(Kind.TREE, bytes(32))])
    assert len(list_packs(store.layout)) == 1


def test_orphans_are_found(store: Store) -> None:
    commit(store, {"a": DATA})
    _waste(store)
    make_old(store)
    stores.sql(store, "DELETE FROM copies")
    report = collect(store)
    assert len(report.dropped) == 1
    assert check(store).ok


def test_a_wrong_index_does_not_mislead(store: Store) -> None:
    commit(store, {"a": DATA})
    make_old(store)
    stores.sql(store, "UPDATE entries SET id = zeroblob(32) WHERE kind = 1 AND offset = 16")
    collect(store)
    assert check(store).ok


def test_second_copies_go_only_if_the_first_is_sound(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(store, {"a": DATA})
    with monkeypatch.context() as patch:
        patch.setattr("shardfs.store.store.Batch.has", lambda *_: set())
        with store.batch() as batch:
            stores.put_tree(batch, {"a": DATA}, {})
    copies = store.find(chunk_id(DATA[:CHUNK_SIZE]))
    assert len(copies) == 2
    make_old(store)
    first = max(copies, key=lambda c: c.pack_size)
    flip(store.layout.pack(first.pack), first.entry.offset)
    collect(store)
    assert Reader(store).chunk(ChunkId(first.entry.id), CHUNK_SIZE) == DATA[:CHUNK_SIZE]


def test_a_pack_with_the_only_damaged_copy_stays(store: Store) -> None:
    with store.batch() as batch:
        stores.put_file(batch, b"x", OTHER)
        stores.put_tree(batch, {"a": DATA[: 2 * CHUNK_SIZE]}, {})
    commit(store, {"a": DATA[: 2 * CHUNK_SIZE]})
    location = store.find(chunk_id(DATA[:CHUNK_SIZE]))[0]
    flip(store.layout.pack(location.pack), location.entry.offset)
    make_old(store)
    report = collect(store)
    assert report.rewritten == []
    assert len(report.problems) == 1
    assert store.layout.pack(location.pack).exists()


def test_a_sound_pack_that_was_taken_for_damaged_stays(store: Store) -> None:
    commit(store, {"a": DATA})
    location = store.find(chunk_id(DATA[:CHUNK_SIZE]))[0]
    store.index.mark_damaged(location.entry.id, location.pack)
    make_old(store)
    collect(store)
    assert check(store).ok
    assert Reader(store).chunk(ChunkId(location.entry.id), CHUNK_SIZE) == DATA[:CHUNK_SIZE]


def _pack_of(store: Store, data: bytes, base: bytes | None, rest: bytes = b"") -> None:
    """A pack with a chunk, whole or as a difference to another one, and with something that nothing needs."""
    with store.batch() as batch:
        encoded = Encoded(0, data) if base is None else Encoded(XOR.code, XOR.encode(data, base), (chunk_id(base),))
        batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, len(data))
        if rest:
            stores.put_file(batch, b"rest", rest)


def test_copies_that_need_each_other_do_not_stay_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CODECS, XOR.code, XOR)
    one, two = noise(21, CHUNK_SIZE), noise(22, CHUNK_SIZE)
    _pack_of(store, one, None, rest=noise(31, 2 * CHUNK_SIZE))
    _pack_of(store, two, None, rest=noise(32, 2 * CHUNK_SIZE))
    _pack_of(store, one, two)
    _pack_of(store, two, one)
    make_old(store)
    collect(store, keep=[(Kind.CHUNK, chunk_id(data)) for data in (one, two)])
    assert [Reader(store).chunk(chunk_id(data), CHUNK_SIZE) for data in (one, two)] == [one, two]
    assert check(store).ok


def test_unreadable_packs_are_left_alone(store: Store) -> None:
    commit(store, {"a": DATA})
    _waste(store)
    path = next(store.layout.pack(c.pack) for c in store.find(chunk_id(noise(9, 10 * CHUNK_SIZE)[:CHUNK_SIZE])))
    with path.open("ab") as file:
        file.write(b"tail")
    make_old(store)
    report = collect(store)
    assert len(report.problems) == 1
    assert path.exists()


def test_unfinished_writes_go_after_a_day(store: Store) -> None:
    old, young = store.layout.tmp / "1-old", store.layout.tmp / "2-young"
    ended, running = store.layout.tmp / "push-1-aa", store.layout.tmp / "push-2-bb"
    for path in (old, young, ended / "pack", running / "pack"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    for path in (old, ended / "pack", ended, running):
        os.utime(path, (1, 1))
    assert collect(store).stale_files == 2
    assert sorted(p.name for p in store.layout.tmp.iterdir()) == ["2-young", "push-2-bb"]
    assert collect(store, grace_s=0).stale_files == 2
    assert list(store.layout.tmp.iterdir()) == []


def test_readers_find_what_gc_moved(store: Store, tmp_path: Path) -> None:
    with store.batch() as batch:
        stores.put_file(batch, b"x", OTHER)
        stores.put_tree(batch, {"a": DATA[: 2 * CHUNK_SIZE]}, {})
    commit(store, {"a": DATA[: 2 * CHUNK_SIZE]})
    make_old(store)
    reader = Reader(store, budget_bytes=0)
    real, moved = store.read, list[GcReport]()

    def read(location):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        store.read = real  # type: ignore[method-assign]
        moved.append(collect(store))
        return real(location)

    store.read = read  # type: ignore[method-assign]
    assert reader.chunk(chunk_id(DATA[:CHUNK_SIZE]), CHUNK_SIZE) == DATA[:CHUNK_SIZE]
    assert moved[0].rewritten
