"""Differences whose bases are damaged, lost, out of reach or made by an enemy: right bytes or a clear error."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest

import shardfs
from shardfs.codecs.base import MAX_BASE_DEPTH
from shardfs.codecs.delta import DeltaCodec, SecondDeltaCodec
from shardfs.codecs.elements import FLOAT32
from shardfs.codecs.patch import PatchCodec
from shardfs.codecs.raw import RawCodec
from shardfs.codecs.registry import Encoded
from shardfs.errors import ChunkCorruptedError, ChunkNotFoundError, ConflictError, FormatError, ShardfsError
from shardfs.formats.ids import ChunkId, Kind, PackId, chunk_id, object_id
from shardfs.formats.tree import EMPTY_TREE, FileEntry
from shardfs.history.objects import Objects
from shardfs.maintenance.gc import gc
from shardfs.repository import Repository
from shardfs.store.receive import receive_pack
from shardfs.store.store import Store
from shardfs.transfer import reader as reader_module
from shardfs.transfer.reader import Reader
from tests import stores
from tests.stores import flip, noise
from tests.weights import State, add, content, deltas, depth, manifest, model, save, tuned

ROOT = Path(__file__).parents[2]
MODEL = "model.safetensors"


@pytest.fixture(autouse=True)
def _reconcile_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "RECONCILE_INTERVAL_S", 0.0)


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository with a model, a fine-tune of it, and one of that."""
    folder = tmp_path / "repo"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with shardfs.init(folder) as found:
        for state in versions():
            save(MODEL, state)
            add(found, MODEL)
        yield found


def versions() -> list[State]:
    return [model(), tuned(model()), tuned(tuned(model()), 2)]


def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty cache: the other one holds plaintext of differences."""
    folder = tmp_path / "another cache"
    shutil.rmtree(folder, ignore_errors=True)
    monkeypatch.setenv("SHARDFS_CACHE_DIR", str(folder))


def damage(repo: Repository, id_: bytes) -> None:
    """Flip a bit in the middle of every local copy of a chunk."""
    for copy in repo.store.find(id_):
        path = repo.store.layout.pack(copy.pack)
        flip(path, copy.entry.offset + copy.entry.stored_size // 2, 2)


def largest(repo: Repository, where: str) -> ChunkId:
    return max(manifest(repo, where).chunks, key=lambda chunk: chunk.size).id


def bottom(repo: Repository, id_: bytes) -> bytes:
    """The chunk at the end of a chain."""
    while bases := repo.store.find(id_)[0].entry.bases:
        id_ = bases[0]
    return id_


# A base that cannot be read


def test_the_error_of_a_version_names_the_base_that_is_damaged(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    base = bottom(repo, largest(repo, f"HEAD:{MODEL}"))
    damage(repo, base)
    elsewhere(monkeypatch, tmp_path)
    with shardfs.open(".") as fresh, pytest.raises(ChunkCorruptedError) as caught:
        content(fresh, f"HEAD:{MODEL}")
    assert str(caught.value).count(base.hex()[:12]) == 1
    assert len(str(caught.value)) < 500
    assert [record.message.split(":")[0] for record in caplog.records] == [f"chunk {base.hex()[:12]}"]
    with shardfs.open(".") as fresh:
        problems = fresh.verify().problems
        assert {problem.object for problem in problems if problem.kind == "chunk"} >= {base.hex()}


def test_a_version_is_committed_without_a_base_that_is_damaged(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = bottom(repo, largest(repo, f"HEAD:{MODEL}"))
    damage(repo, base)
    elsewhere(monkeypatch, tmp_path)
    with shardfs.open(".") as fresh:
        saved = save(MODEL, tuned(versions()[-1], 3))
        add(fresh, MODEL)
        assert content(fresh, f"HEAD:{MODEL}") == saved
        assert depth(fresh, largest(fresh, f"HEAD:{MODEL}")) == 0


def test_adding_the_versions_again_in_any_order_heals_them(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first version must not become a difference to the last one, which is one to it."""
    for chunk in manifest(repo, f"HEAD~2:{MODEL}").chunks:
        damage(repo, chunk.id)
    elsewhere(monkeypatch, tmp_path)
    with shardfs.open(".") as fresh:
        fresh.verify()
        for number in (2, 0, 1):
            save(MODEL, versions()[number])
            fresh.add([MODEL])
        fresh.gc(grace_s=0)
        elsewhere(monkeypatch, tmp_path)
    with shardfs.open(".") as fresh:
        for age, state in enumerate(reversed(versions())):
            assert content(fresh, f"HEAD~{age}:{MODEL}") == save(MODEL, state)
        assert fresh.verify().problems == []


@pytest.mark.parametrize("noticed_by", ["reading", "verify"])
@pytest.mark.parametrize("what", ["damaged", "lost"])
def test_adding_a_version_again_heals_it_without_its_bases(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, noticed_by: str
) -> None:
    for chunk in manifest(repo, f"HEAD~2:{MODEL}").chunks:
        if what == "damaged":
            damage(repo, chunk.id)
        else:
            repo.store.layout.pack(repo.store.find(chunk.id)[0].pack).unlink(missing_ok=True)
    elsewhere(monkeypatch, tmp_path)
    with shardfs.open(".") as fresh:
        if noticed_by == "verify":
            assert fresh.verify().problems
        else:
            for chunk in manifest(fresh, f"HEAD:{MODEL}").chunks:
                with suppress(ShardfsError):
                    fresh.reader.chunk(chunk.id, chunk.size)
        saved = save(MODEL, versions()[-1])
        fresh.add([MODEL])
        elsewhere(monkeypatch, tmp_path)
    with shardfs.open(".") as fresh:
        assert content(fresh, f"HEAD:{MODEL}") == saved


def test_a_damaged_base_is_healed_by_a_remote(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.add_remote("origin", (tmp_path / "server").as_uri())
    repo.push()
    repo.fetch()
    damage(repo, bottom(repo, largest(repo, f"HEAD:{MODEL}")))
    elsewhere(monkeypatch, tmp_path)
    with shardfs.open(".") as fresh:
        assert content(fresh, f"HEAD:{MODEL}") == Path(MODEL).read_bytes()
        saved = save(MODEL, tuned(versions()[-1], 3))
        add(fresh, MODEL)
        assert len(deltas(fresh, f"HEAD:{MODEL}")) > 3
        assert content(fresh, f"HEAD:{MODEL}") == saved


def test_a_version_is_committed_when_all_before_it_went_with_a_remote(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.add_remote("origin", (tmp_path / "server").as_uri())
    repo.push()
    elsewhere(monkeypatch, tmp_path)
    with shardfs.clone((tmp_path / "server").as_uri(), tmp_path / "clone") as clone:
        shutil.rmtree(tmp_path / "server")
        monkeypatch.chdir(tmp_path / "clone")
        saved = save(MODEL, tuned(versions()[-1], 3))
        add(clone, MODEL)
        new = next(chunk for chunk in manifest(clone, f"HEAD:{MODEL}").chunks if chunk.size > 100_000)
        assert clone.reader.chunk(new.id, new.size) in saved
        assert deltas(clone, f"HEAD:{MODEL}") == []


def test_a_version_is_committed_after_one_whose_manifest_is_damaged(repo: Repository) -> None:
    entry = repo.entry("HEAD", MODEL)
    assert isinstance(entry, FileEntry)
    assert entry.manifest is not None
    damage(repo, entry.manifest)
    with shardfs.open(".") as fresh:
        saved = save(MODEL, tuned(versions()[-1], 3))
        add(fresh, MODEL)
        assert content(fresh, f"HEAD:{MODEL}") == saved


def test_a_commit_of_differences_may_be_killed_anywhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.killing_deltas", "tune", tmp_path],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["status"] for one in rounds[:-1]} == {9}
    assert rounds[-1]["status"] == 0, done.stderr[-2000:]
    assert len(rounds) > 15
    assert {one["step"]: one["problems"] for one in rounds if one["problems"]} == {}


# Packs made by an enemy


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / "store")
    yield made
    made.close()


@pytest.fixture
def enemy(tmp_path: Path) -> Iterator[Store]:
    made = Store.create(tmp_path / "enemy")
    yield made
    made.close()


def delta1(data: bytes, base: bytes, names: Sequence[bytes] | None = None) -> tuple[bytes, Encoded]:
    names = (chunk_id(base),) if names is None else tuple(names)
    return data, Encoded(DeltaCodec.code, DeltaCodec().encode(data, FLOAT32, base), names)


def delta2(data: bytes, one: bytes, two: bytes) -> tuple[bytes, Encoded]:
    payload = SecondDeltaCodec().encode(data, FLOAT32, (one, two))
    return data, Encoded(SecondDeltaCodec.code, payload, (chunk_id(one), chunk_id(two)))


def patch(data: bytes, base: bytes) -> tuple[bytes, Encoded]:
    return data, Encoded(PatchCodec.code, PatchCodec().encode(data, base), (chunk_id(base),))


def raw(data: bytes) -> tuple[bytes, Encoded]:
    return data, Encoded(RawCodec.code, data)


def pack(store: Store, *payloads: tuple[bytes, Encoded]) -> PackId:
    """A pack of payloads as they are."""
    before = set(store.index.packs())
    with store.batch() as batch:
        for data, encoded in payloads:
            size = len(data)
            encoded = encoded if len(encoded.payload) <= size else encoded._replace(payload=encoded.payload[:size])
            batch.put_encoded(Kind.CHUNK, chunk_id(data), encoded, size)
    return next(iter(set(store.index.packs()) - before))


def send(source: Store, pack_id: PackId, target: Store) -> None:
    target.layout.tmp.mkdir(exist_ok=True)
    temp = target.layout.tmp / "incoming"
    shutil.copyfile(source.layout.pack(pack_id), temp)
    receive_pack(target, temp, pack_id)


SIZE = 4096
A, B, C = (bytes(SIZE - 1) + bytes([last]) for last in (1, 2, 3))
SHORT = bytes(SIZE // 2)
TREE = EMPTY_TREE.to_bytes()

HOSTILE: dict[str, list[tuple[bytes, Encoded]]] = {
    "no base": [raw(A), delta1(B, A, ())],
    "a base too many": [raw(A), raw(B), delta1(C, A, (chunk_id(A), chunk_id(B)))],
    "a second base too few": [raw(A), (C, delta2(C, A, B)[1]._replace(bases=(chunk_id(A),)))],
    "a base for a codec without": [raw(A), (B, Encoded(RawCodec.code, B, (chunk_id(A),)))],
    "a base of another size": [raw(SHORT), delta1(B, A, (chunk_id(SHORT),))],
    "another base": [raw(A), raw(B), delta1(C, A, (chunk_id(B),))],
    "itself": [delta1(A, A)],
    "a circle of two": [delta1(A, B), delta1(B, A)],
    "a circle through second bases": [raw(C), delta2(A, C, B), delta2(B, C, A)],
    "a circle of patches": [patch(A, B), patch(B, C), patch(C, A)],
    "a base that is nowhere": [delta1(A, B)],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pack_is_not_let_in(name: str, store: Store, enemy: Store) -> None:
    made = pack(enemy, *HOSTILE[name])
    with pytest.raises((FormatError, ConflictError)):
        send(enemy, made, store)
    assert not store.index.packs()
    assert not store.layout.pack(made).exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pack_that_is_here_gives_errors(name: str, enemy: Store) -> None:
    """As when it came with a static remote, whose packs nobody verified."""
    pack(enemy, *HOSTILE[name])
    reader = Reader(enemy)
    last = HOSTILE[name][-1][0]
    with pytest.raises((ChunkCorruptedError, ChunkNotFoundError)):
        reader.chunk(chunk_id(last), len(last))


def test_a_base_that_is_an_object_is_refused(store: Store, enemy: Store) -> None:
    tree = object_id(Kind.TREE, TREE)
    with enemy.batch() as batch:
        batch.put(Kind.TREE, TREE)
        batch.put_encoded(Kind.CHUNK, chunk_id(A), delta1(A, B, (tree,))[1], SIZE)
    [made] = enemy.index.packs()
    with pytest.raises((FormatError, ConflictError)):
        send(enemy, made, store)
    with pytest.raises((ChunkCorruptedError, ChunkNotFoundError)):
        Reader(enemy).chunk(chunk_id(A), SIZE)


def test_an_object_that_names_a_base_is_refused(store: Store, enemy: Store) -> None:
    with enemy.batch() as batch:
        batch.put(Kind.CHUNK, A)
        payload = PatchCodec().encode(TREE, A)[: len(TREE)]
        batch.put_encoded(Kind.TREE, EMPTY_TREE.id, Encoded(PatchCodec.code, payload, (chunk_id(A),)), len(TREE))
    [made] = enemy.index.packs()
    with pytest.raises((FormatError, ConflictError)):
        send(enemy, made, store)


def line(length: int) -> list[bytes]:
    return [number.to_bytes(4, "little") + bytes(SIZE - 4) for number in range(length)]


@pytest.mark.parametrize("split", [False, True], ids=["one pack", "a pack each"])
def test_a_chain_that_is_too_deep_is_refused(store: Store, enemy: Store, split: bool) -> None:
    datas = line(MAX_BASE_DEPTH + 2)
    payloads = [raw(datas[0])] + [delta1(new, old) for old, new in pairwise(datas)]
    groups = [[payload] for payload in payloads] if split else [payloads]
    for group in groups[:-1]:
        send(enemy, pack(enemy, *group), store)
    with pytest.raises((FormatError, ConflictError)):
        send(enemy, pack(enemy, *groups[-1]), store)
    assert len(store.index.packs()) == len(groups) - 1


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("end", ["lost", "circle"])
def test_what_cannot_be_read_is_not_tried_for_ever(
    enemy: Store, copies: int, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are `copies` to the power of 16 ways down to a base that nobody has."""
    datas = line(MAX_BASE_DEPTH)
    for number in range(copies):
        payloads = [delta1(new, old) for old, new in pairwise(datas)]
        if end == "circle":
            payloads.append(delta1(datas[0], datas[-1 - number]))
        pack(enemy, raw(b"%d" % number), *payloads)
    looks = 0
    find = Store.find

    def counted(store: Store, id_: bytes) -> object:
        nonlocal looks
        looks += 1
        return find(store, id_)

    monkeypatch.setattr(Store, "find", counted)
    with pytest.raises(ChunkCorruptedError) as caught:
        Reader(enemy).chunk(chunk_id(datas[-1]), SIZE)
    assert looks < 10_000
    assert len(str(caught.value)) < 2000


def test_a_copy_is_found_among_circles(enemy: Store) -> None:
    """A chunk that cannot be read below another may be readable by itself, and then that one below it."""
    pack(enemy, raw(C), patch(B, C), raw(b"1"))
    pack(enemy, delta1(A, B), delta1(B, A), raw(b"2"))
    for data in (A, B, C):
        assert Reader(enemy).chunk(chunk_id(data), SIZE) == data


def test_gc_keeps_a_way_to_every_chunk_among_copies_that_need_each_other(store: Store) -> None:
    """Copies that came from different places may be differences to each other."""
    a, b = noise(1, SIZE), bytes(8) + noise(1, SIZE)[8:]
    pack(store, raw(a), *(raw(noise(seed, SIZE)) for seed in range(2, 6)))
    pack(store, patch(b, a))
    pack(store, patch(a, b))
    stores.commit(store, {"a": a, "b": b})
    assert gc(store, Objects(Reader(store)), grace_s=0).freed_bytes > 0
    for data in (a, b):
        assert Reader(store).chunk(chunk_id(data), SIZE) == data


def test_gc_keeps_chains_as_short_as_readers_need_them(store: Store) -> None:
    """A copy in a pack that is needed altogether may be much deeper than one in a pack of waste."""
    datas = line(MAX_BASE_DEPTH + 2)
    *others, last_but_one, last = datas
    pack(store, raw(last_but_one), *(raw(noise(seed, SIZE)) for seed in range(2, 6)))
    pack(store, raw(others[0]), *(delta1(new, old) for old, new in pairwise([*others, last_but_one])))
    pack(store, delta1(last, last_but_one))
    stores.commit(store, {f"{number:02}": data for number, data in enumerate(datas)})
    assert gc(store, Objects(Reader(store)), grace_s=0).freed_bytes > 0
    for data in datas:
        assert Reader(store, budget_bytes=0).chunk(chunk_id(data), SIZE) == data
