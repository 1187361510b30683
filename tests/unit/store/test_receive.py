"""The door of a store: what comes in is whole, and a ref only names what is there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shardfs.codecs import registry
from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.registry import Encoded
from shardfs.errors import (
    ConflictError,
    MalformedError,
    RefChangedError,
)
from shardfs.formats.commit import Commit
from shardfs.formats.ids import ChunkId, CommitId, Kind, ManifestId, PackId, TreeId, chunk_id
from shardfs.formats.manifest import ChunkRef, Manifest
from shardfs.formats.ref import packs_from_bytes, refs_from_bytes
from shardfs.formats.tree import DirEntry, FileEntry, LinkEntry, Tree, TreeEntry
from shardfs.store import closure
from shardfs.store.closure import check_closure
from shardfs.store.plaintext import read_plaintext
from shardfs.store.receive import receive_pack, receive_ref, settle
from shardfs.store.store import Store
from tests.stores import MAIN, XorCodec, add_commit, make_store


@pytest.fixture(autouse=True)
def _xor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CODECS, XorCodec.code, XorCodec())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "here")
    yield store
    store.close()


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Store]:
    store = Store.create(tmp_path / "elsewhere")
    yield store
    store.close()


def carry(source: Store, pack_id: PackId, target: Store) -> Path:
    """A copy of a pack in the temporary directory of another store."""
    target.layout.tmp.mkdir(exist_ok=True)
    temp = target.layout.tmp / "incoming"
    temp.write_bytes(source.layout.pack(pack_id).read_bytes())
    return temp


def chain(store: Store, length: int, *, split: bool) -> list[bytes]:
    """Chunks each of which names the one before as its base; `split`: each in a pack of its own."""
    chunks = [f"chunk {n:02}".encode() * 20 for n in range(length)]
    ids = [chunk_id(c) for c in chunks]

    def put(numbers: range) -> None:
        with store.batch() as batch:
            for n in numbers:
                encoded = Encoded(registry.RAW.code, chunks[n])
                if n:
                    encoded = Encoded(XorCodec.code, XorCodec().encode(chunks[n], chunks[n - 1]), (ids[n - 1],))
                batch.put_encoded(Kind.CHUNK, ids[n], encoded, len(chunks[n]))

    for numbers in [range(n, n + 1) for n in range(length)] if split else [range(length)]:
        put(numbers)
    return [bytes(i) for i in ids]


@pytest.mark.parametrize("split", [True, False])
def test_bases_are_in_the_pack_or_in_the_store(store: Store, elsewhere: Store, split: bool) -> None:
    ids = chain(elsewhere, 5, split=split)
    order = sorted(elsewhere.index.packs(), key=lambda p: ids.index(elsewhere.index.entries(p)[0].id))
    for pack_id in order:
        receive_pack(store, carry(elsewhere, pack_id, store), pack_id)
    assert read_plaintext(store, ids[-1], Kind.CHUNK) == b"chunk 04" * 20


def test_base_that_is_not_here_is_named(store: Store, elsewhere: Store) -> None:
    ids = chain(elsewhere, 2, split=True)
    pack_id = next(p for p in elsewhere.index.packs() if elsewhere.index.entries(p)[0].id == ids[1])
    with pytest.raises(ConflictError, match=ids[0].hex()[:12]):
        receive_pack(store, carry(elsewhere, pack_id, store), pack_id)
    assert list(store.layout.tmp.iterdir()) == []
    assert store.index.packs() == {}


def test_chains_of_bases_are_bounded(store: Store, elsewhere: Store) -> None:
    chain(elsewhere, MAX_BASE_DEPTH + 2, split=False)
    (pack_id,) = elsewhere.index.packs()
    with pytest.raises(MalformedError, match="base"):
        receive_pack(store, carry(elsewhere, pack_id, store), pack_id)


def test_received_pack_replaces_a_damaged_copy(store: Store, elsewhere: Store) -> None:
    commit = add_commit(elsewhere, None, 1)
    (pack_id,) = elsewhere.index.packs()
    receive_pack(store, carry(elsewhere, pack_id, store), pack_id)
    store.layout.pack(pack_id).write_bytes(b"")
    receive_pack(store, carry(elsewhere, pack_id, store), pack_id)
    assert Commit.from_bytes(read_plaintext(store, commit, Kind.COMMIT)).id == commit


def listed(store: Store) -> set[PackId]:
    return {p.id for p in packs_from_bytes(store.layout.info_packs.read_bytes())}


@pytest.mark.parametrize("listing", ["stale", "gone", "garbage"])
def test_what_a_killed_process_left_is_finished_before_a_ref_moves(tmp_path: Path, listing: str) -> None:
    store, commits = make_store(tmp_path / "s", 2)
    known = set(store.index.packs())
    new = add_commit(store, commits[-1], 3, move=None)
    (orphan,) = set(store.index.packs()) - known
    store.index.remove_packs([orphan])
    store.write_pack_listing()
    if listing == "gone":
        store.layout.info_packs.unlink()
    elif listing == "garbage":
        store.layout.info_packs.write_bytes(b"{")
    receive_ref(store, MAIN, commits[-1], new, by="test")
    assert listed(store) == {*known, orphan}
    store.close()


def test_indexed_packs_are_listed_before_a_ref_moves(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "s", 2)
    stale = store.layout.info_packs.read_bytes()
    new = add_commit(store, commits[-1], 3, move=None)
    store.layout.info_packs.write_bytes(stale)
    receive_ref(store, MAIN, commits[-1], new, by="test")
    assert listed(store) == set(store.index.packs())
    store.close()


def test_pack_that_is_gone_does_not_count(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "s", 2)
    known = set(store.index.packs())
    new = add_commit(store, commits[-1], 3, move=None)
    (lost,) = set(store.index.packs()) - known
    store.layout.pack(lost).unlink()
    with pytest.raises(ConflictError):
        receive_ref(store, MAIN, commits[-1], new, by="test")
    store.close()


def test_repeated_move_brings_the_listing_up_to_date(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "s", 1)
    stale = store.layout.info_refs.read_bytes()
    new = add_commit(store, commits[-1], 2, move=None)
    for _ in range(2):
        receive_ref(store, MAIN, commits[0], new, by="test")
        assert refs_from_bytes(store.layout.info_refs.read_bytes())[1] == {MAIN: new}
        store.layout.info_refs.write_bytes(stale)
    settle(store)
    assert refs_from_bytes(store.layout.info_refs.read_bytes())[1] == {MAIN: new}
    store.close()


def put_commit(store: Store, tree: Tree, parents: tuple[CommitId, ...] = (), time_us: int = 1) -> CommitId:
    with store.batch() as batch:
        tree_id = TreeId(batch.put(Kind.TREE, tree.to_bytes()))
        commit = Commit(tree_id, parents, "A", time_us, f"{time_us}")
        return CommitId(batch.put(Kind.COMMIT, commit.to_bytes()))


def put(store: Store, kind: Kind, data: bytes) -> bytes:
    with store.batch() as batch:
        return batch.put(kind, data)


ABSENT = b"\7" * 32


def test_complete_history(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "s", 4)
    store.refs.move(MAIN, commits[-1], None)
    check_closure(store, commits[-1])
    store.close()


def missing_things(store: Store) -> dict[str, CommitId]:
    """Commits each of which lacks one thing, by what it is."""
    chunk = ChunkId(put(store, Kind.CHUNK, b"here"))
    manifest = Manifest(8, (ChunkRef(chunk, 4), ChunkRef(ChunkId(ABSENT), 4)))
    manifest_id = put(store, Kind.MANIFEST, manifest.to_bytes())
    inner = Tree.of([FileEntry(b"f", 4, chunk=ChunkId(ABSENT))])
    inner_id = TreeId(put(store, Kind.TREE, inner.to_bytes()))
    with store.batch() as batch:
        no_tree = Commit(TreeId(ABSENT), (), "A", 1, "")
        batch.put(Kind.COMMIT, no_tree.to_bytes())
        whole = TreeId(batch.put(Kind.TREE, Tree(()).to_bytes()))
        no_attachment = Commit(whole, (), "A", 1, "", attachments=TreeId(ABSENT))
        batch.put(Kind.COMMIT, no_attachment.to_bytes())
    return {
        "commit": CommitId(ABSENT),
        "parent": put_commit(store, Tree(()), (CommitId(ABSENT),)),
        "tree": no_tree.id,
        "attachments": no_attachment.id,
        "subtree": put_commit(store, Tree.of([DirEntry(b"d", TreeId(ABSENT))])),
        "chunk": put_commit(store, Tree.of([FileEntry(b"f", 4, chunk=ChunkId(ABSENT))])),
        "deep chunk": put_commit(store, Tree.of([DirEntry(b"d", inner_id)])),
        "manifest": put_commit(store, Tree.of([FileEntry(b"f", 4, manifest=ABSENT)])),  # type: ignore[arg-type]
        "chunk of a manifest": put_commit(store, Tree.of([FileEntry(b"f", 8, manifest=manifest_id)])),  # type: ignore[arg-type]
    }


def test_whatever_is_missing_is_noticed(store: Store) -> None:
    for what, commit in missing_things(store).items():
        with pytest.raises(ConflictError) as caught:
            receive_ref(store, MAIN, None, commit, by="test")
        assert ABSENT.hex()[:12] in str(caught.value), what
        with pytest.raises(ConflictError):  # as the second commit of a history, too
            check_closure(store, put_commit(store, Tree(()), (commit,), 2))
    assert store.refs.list() == {}


def test_sizes_that_no_reader_would_find_are_noticed(store: Store) -> None:
    chunk = ChunkId(put(store, Kind.CHUNK, b"here"))
    whole = Manifest(8, (ChunkRef(chunk, 4), ChunkRef(chunk, 4)))
    wrong = Manifest(8, (ChunkRef(chunk, 3), ChunkRef(chunk, 5)))
    whole_id, wrong_id = (ManifestId(put(store, Kind.MANIFEST, made.to_bytes())) for made in (whole, wrong))
    sound: list[TreeEntry] = [FileEntry(b"a", 4, chunk=chunk), FileEntry(b"b", 8, manifest=whole_id)]
    for entry in (
        FileEntry(b"f", 9, manifest=whole_id),
        FileEntry(b"f", 9, chunk=chunk),
        FileEntry(b"f", 8, manifest=wrong_id),
    ):
        for others in ([], sound):  # which name the same and are right
            files = [*others, entry]
            with pytest.raises(ConflictError, match=r"has a manifest of 8 bytes|has 4 bytes and is named as one of"):
                receive_ref(store, MAIN, None, put_commit(store, Tree.of(files)), by="test")
    receive_ref(store, MAIN, None, put_commit(store, Tree.of(sound)), by="test")


def test_a_chunk_whose_base_is_missing_is_noticed(store: Store) -> None:
    data, base = b"chunk" * 100, b"other" * 100
    encoded = Encoded(XorCodec.code, XorCodec().encode(data, base), (chunk_id(base),))
    with store.batch() as batch:
        batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, len(data))
    commit = put_commit(store, Tree.of([FileEntry(b"f", len(data), chunk=chunk_id(data))]))
    with pytest.raises(ConflictError, match=chunk_id(data).hex()[:12]):
        receive_ref(store, MAIN, None, commit, by="test")
    with store.batch() as batch:
        batch.put(Kind.CHUNK, base)
    receive_ref(store, MAIN, None, commit, by="test")
    assert store.refs.get(MAIN) == commit


def test_links_and_empty_files_need_nothing(store: Store) -> None:
    commit = put_commit(store, Tree.of([LinkEntry(b"l", b"/anywhere"), FileEntry(b"empty", 0)]))
    receive_ref(store, MAIN, None, commit, by="test")
    assert store.refs.get(MAIN) == commit


def test_only_what_is_new_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, commits = make_store(tmp_path / "s", 30)
    new = add_commit(store, commits[-1], 31, move=None)
    read: list[bytes] = []
    real = read_plaintext

    def counted(store: Store, id_: bytes, kind: Kind) -> bytes:
        read.append(id_)
        return real(store, id_, kind)

    monkeypatch.setattr(closure, "read_plaintext", counted)
    check_closure(store, new)
    assert len(read) < 10
    read.clear()
    check_closure(store, commits[3])  # reached by a ref, far back
    assert not any(id_ in read for id_ in _trees(store))
    store.close()


def _trees(store: Store) -> set[bytes]:
    return {e.id for p in store.index.packs() for e in store.index.entries(p) if e.kind is Kind.TREE}


def test_clocks_that_run_backwards(store: Store) -> None:
    tips = [put_commit(store, Tree(()), (), 100)]
    for time_us in (50, 200, 10, 10, 500, -5):
        tips.append(put_commit(store, Tree(()), (tips[-1],), time_us))
    for old in tips:
        store.refs.move(MAIN, store.refs.get(MAIN), old)
        for new in tips:
            check_closure(store, new)


def test_damaged_old_history_does_not_block_new_commits(tmp_path: Path) -> None:
    store, commits = make_store(tmp_path / "s", 3)
    pack_id = next(p for p in store.index.packs() if commits[0] in {e.id for e in store.index.entries(p)})
    store.layout.pack(pack_id).write_bytes(os.urandom(100))
    new = add_commit(store, commits[-1], 4, move=None)
    receive_ref(store, MAIN, commits[-1], new, by="test")
    assert store.refs.get(MAIN) == new
    store.close()


def test_moves_and_the_first_head(store: Store) -> None:
    first = put_commit(store, Tree(()))
    second = put_commit(store, Tree(()), (first,), 2)
    receive_ref(store, "refs/tags/v1", None, first, by="test")
    assert store.refs.head().branch == MAIN
    receive_ref(store, "refs/heads/dev", None, first, by="test")
    assert store.refs.head().branch == "refs/heads/dev"
    receive_ref(store, MAIN, None, second, by="test")
    assert store.refs.head().branch == "refs/heads/dev"
    with pytest.raises(RefChangedError) as caught:
        receive_ref(store, MAIN, first, CommitId(ABSENT), by="test")
    assert caught.value.current == second
    receive_ref(store, MAIN, second, None, by="test")
    assert store.refs.get(MAIN) is None
    for bad in ("refs/remotes/origin/main", "HEAD", "refs/heads/../../HEAD"):
        with pytest.raises(MalformedError):
            receive_ref(store, bad, None, first, by="test")
