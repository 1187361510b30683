"""A store as a whole: create, open, batches, and an index that heals."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.errors import (
    AlreadyExistsError,
    LockedError,
    PackCorruptedError,
    RepositoryNotFoundError,
    UnsupportedVersionError,
    UsageError,
)
from shardfs.formats import ref as ref_format
from shardfs.formats.ids import Kind, chunk_id
from shardfs.formats.ref import Head
from shardfs.store import packs
from shardfs.store.plaintext import read_plaintext
from shardfs.store.store import Store
from tests.stores import commit, flip, noise


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "s")
    yield store
    store.close()


def _put(store: Store, *data: bytes) -> list[bytes]:
    with store.batch() as batch:
        return [batch.put(Kind.CHUNK, one) for one in data]


def _read(store: Store, id_: bytes) -> bytes:
    return read_plaintext(store, id_, Kind.CHUNK)


def _listed(store: Store) -> set[bytes]:
    return {p.id for p in ref_format.packs_from_bytes(store.layout.info_packs.read_bytes())}


# Create and open


def test_an_empty_store(store: Store) -> None:
    assert store.refs.head() == Head("refs/heads/main")
    assert store.refs.list() == {}
    assert _listed(store) == set()
    assert ref_format.refs_from_bytes(store.layout.info_refs.read_bytes()) == ("refs/heads/main", {})


def test_one_store_in_one_place(store: Store, tmp_path: Path) -> None:
    with pytest.raises(AlreadyExistsError, match="repository already"):
        Store.create(tmp_path / "s")
    with store.lock.hold("import"), pytest.raises(AlreadyExistsError):  # without waiting for the writer
        Store.create(tmp_path / "s")
    with pytest.raises(UsageError):
        Store.create(tmp_path / "t", branch="a..b")


def test_of_many_creators_one_wins_and_takes_nothing_from_the_others(tmp_path: Path) -> None:
    start = threading.Barrier(4)
    made: list[bytes] = []

    def create(number: int) -> None:
        start.wait()
        try:
            store = Store.create(tmp_path / "s")
        except AlreadyExistsError:
            return
        made.append(commit(store, {"a": b"%d" % number}))
        store.close()

    threads = [threading.Thread(target=create, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [tip] = made
    listing = ref_format.refs_from_bytes((tmp_path / "s/info/refs").read_bytes())
    assert listing == ("refs/heads/main", {"refs/heads/main": tip})
    assert ref_format.packs_from_bytes((tmp_path / "s/info/packs").read_bytes())


def test_no_store_and_a_newer_store(tmp_path: Path) -> None:
    with pytest.raises(RepositoryNotFoundError):
        Store(tmp_path)
    (tmp_path / "config.toml").write_text("format = 2\n")
    with pytest.raises(UnsupportedVersionError, match="format 2"):
        Store(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(UnsupportedVersionError, match="format None"):
        Store(tmp_path)


@pytest.mark.parametrize("missing", ["tmp", "packs", "refs", "info", "lock", "index.sqlite"])
def test_what_tools_leave_out_of_a_copy_is_made_again(store: Store, missing: str) -> None:
    """Empty directories get lost in archives and on static web servers."""
    store.close()
    path = store.layout.root / missing
    if path.is_dir():
        for below in sorted(path.rglob("*"), reverse=True):
            below.rmdir() if below.is_dir() else below.unlink()
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    again = Store(store.layout.root)
    tip = commit(again, {"a": b"x"})
    assert again.refs.get("refs/heads/main") == tip
    again.close()


# Batches


def test_a_batch_is_durable_when_it_ends(store: Store) -> None:
    [id_] = _put(store, b"hello" * 100)
    assert _read(store, id_) == b"hello" * 100
    assert _listed(store) == set(store.index.packs())
    store.close()
    again = Store(store.layout.root)
    assert _read(again, id_) == b"hello" * 100
    again.close()


def test_a_failed_batch_adds_nothing(store: Store) -> None:
    def fail() -> None:
        with store.batch() as batch:
            batch.put(Kind.CHUNK, b"data")
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert store.find(chunk_id(b"data")) == []
    assert packs.list_packs(store.layout) == {}
    assert list(store.layout.tmp.iterdir()) == []
    with store.batch("next"):
        pass


def test_nothing_is_stored_twice(store: Store) -> None:
    _put(store, b"one", b"one", b"two")
    _put(store, b"two", b"three")
    assert sorted(len(store.index.entries(p)) for p in store.index.packs()) == [1, 2]
    _put(store, b"one", b"three")
    assert len(store.index.packs()) == 2


def test_an_empty_batch_makes_no_pack(store: Store) -> None:
    assert _put(store) == []
    assert packs.list_packs(store.layout) == {}


def test_batches_of_many_packs(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs, "TARGET_SIZE", 10_000)
    ids = _put(store, *(noise(i, 4000) for i in range(10)))
    assert len(store.index.packs()) > 3
    assert [_read(store, id_) for id_ in ids] == [noise(i, 4000) for i in range(10)]


def test_only_one_batch_at_a_time(store: Store) -> None:
    refused: list[Exception] = []

    def second() -> None:
        try:
            with store.lock.hold("second", wait_s=0):
                pass
        except LockedError as error:
            refused.append(error)

    with store.batch("import") as batch:
        batch.put(Kind.CHUNK, b"x")
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert "import" in str(refused[0])


# An index that heals


def test_readers_never_wait_for_the_first_import(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs of an unfinished batch are on disk while the index knows none: no reason to wait for the writer."""
    monkeypatch.setattr(packs, "TARGET_SIZE", 1000)
    opened: list[int] = []

    def reader() -> None:
        other = Store(store.layout.root, lock_wait_s=60)
        opened.append(len(other.find(bytes(32))))
        other.reconcile()
        other.close()

    with store.batch("import") as batch:
        for i in range(5):
            batch.put(Kind.CHUNK, noise(i, 900))
        assert packs.list_packs(store.layout)
        thread = threading.Thread(target=reader)
        thread.start()
        thread.join(20)
        assert opened == [0]


def test_a_pack_that_the_index_does_not_know_is_found(store: Store) -> None:
    [id_] = _put(store, b"data")
    store.index.remove_packs(store.index.packs())
    assert store.find(id_) == []
    assert store.reconcile() is True
    assert _read(store, id_) == b"data"
    assert store.reconcile() is False


def test_a_pack_that_is_gone_does_not_count_as_stored(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What was in it is stored again when somebody adds it again: the way a user heals a lost file."""
    [id_] = _put(store, b"data")
    [pack] = store.index.packs()
    store.layout.pack(pack).unlink()
    with caplog.at_level(logging.WARNING):
        assert _put(store, b"data") == [id_]
    assert "gone" in caplog.text
    assert _read(store, id_) == b"data"
    assert store.reconcile() is False


def test_reconcile_forgets_packs_that_are_gone(store: Store) -> None:
    [id_] = _put(store, b"data")
    store.index.add_packs([(p, s, ()) for p, s in store.index.packs().items()], place="origin")
    for pack in store.index.packs():
        store.layout.pack(pack).unlink()
    assert store.reconcile() is True
    assert [c.place for c in store.find(id_)] == ["origin"]


def test_a_dropped_pack_never_comes_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that compares index and packs between the two halves of a drop must not resurrect the pack."""
    [id_] = _put(store, b"data")
    [pack] = store.index.packs()
    other = Store(store.layout.root)
    real = store.write_pack_listing

    def reader_comes_along() -> None:
        real()
        assert other.reconcile() is True
        assert other.find(id_)

    monkeypatch.setattr(store, "write_pack_listing", reader_comes_along)
    store.drop_packs([pack])
    assert store.find(id_) == other.find(id_) == []
    assert packs.list_packs(store.layout) == {}
    assert other.reconcile() is False
    other.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE packs SET size = size + 1",
        "UPDATE packs SET id = zeroblob(32)",
        "UPDATE packs SET id = 5",
        "DELETE FROM copies",
        "DELETE FROM entries",
        "UPDATE entries SET offset = 'x'",
        "UPDATE entries SET kind = 9",
        "UPDATE entries SET bases = zeroblob(32)",
        "INSERT INTO entries SELECT zeroblob(32), pack, 1, 0, 16, 1, 1, x'' FROM packs",
    ],
)
def test_every_wrong_row_is_mended(store: Store, statement: str) -> None:
    ids = _put(store, b"one", b"two")
    before = store.find(ids[0])
    store.index._connect().sqlite.execute(statement)
    assert store.reconcile() is True
    assert store.find(ids[0]) == before
    assert store.find(bytes(32)) == []
    assert store.reconcile() is False


def test_a_deleted_index_under_open_stores(store: Store) -> None:
    [first] = _put(store, b"one")
    other = Store(store.layout.root)
    store.layout.index.unlink()
    [second] = _put(other, b"two")
    for one in (store, other):
        assert _read(one, first) == b"one"
        assert _read(one, second) == b"two"
    assert _listed(store) == set(packs.list_packs(store.layout))
    other.close()


@pytest.mark.parametrize("data", [b"", b"x" * 5000])
def test_an_unreadable_index_is_made_again_on_opening(store: Store, data: bytes) -> None:
    [id_] = _put(store, b"one")
    store.close()
    store.layout.index.write_bytes(data)
    again = Store(store.layout.root)
    assert _read(again, id_) == b"one"
    again.close()


def test_rebuilding_names_damaged_packs_and_keeps_the_rest(store: Store) -> None:
    [first] = _put(store, b"one")
    [pack] = store.index.packs()
    [second] = _put(store, b"two")
    store.index.add_packs([(pack, 99, ())], place="origin")
    flip(store.layout.pack(pack), -1)
    other = Store(store.layout.root)
    [problem] = store.rebuild_index()
    assert isinstance(problem, PackCorruptedError)
    assert pack.hex()[:12] in str(problem)
    for one in (store, other):
        assert one.find(first) == []
        assert _read(one, second) == b"two"
    assert _listed(store) == set(store.index.packs())
    other.close()


def test_drop_packs(store: Store) -> None:
    _put(store, b"one")
    [keep] = store.index.packs()
    _put(store, b"two")
    doomed = [p for p in store.index.packs() if p != keep]
    store.drop_packs(doomed)
    store.drop_packs(doomed)
    assert set(store.index.packs()) == set(packs.list_packs(store.layout)) == _listed(store) == {keep}


def test_adopted_packs_are_indexed_by_their_own_table(store: Store, tmp_path: Path) -> None:
    other = Store.create(tmp_path / "other")
    [id_] = _put(other, b"data")
    [(pack, size)] = other.index.packs().items()
    lie = other.index.entries(pack)[0]._replace(id=chunk_id(b"lie"))
    store.index.add_packs([(pack, size, [lie])], place="evil")
    temp = store.layout.tmp / "incoming"
    temp.write_bytes(other.layout.pack(pack).read_bytes())
    assert store.adopt_pack(temp, pack).id == pack
    assert _read(store, id_) == b"data"
    assert store.index.has([chunk_id(b"lie")]) == set()
    other.close()
