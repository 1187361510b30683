"""Differences and what they are differences to, between repositories: a remote always has both."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import shardfs
from shardfs.errors import RemoteDeniedError
from shardfs.formats.ids import CommitId, Kind
from shardfs.formats.tree import FileEntry
from shardfs.repository import Repository
from tests.serving import serving
from tests.weights import add, content, deltas, model, save, tuned

pytestmark = pytest.mark.network

MODEL = "model.safetensors"


@pytest.fixture(scope="module", params=["directory", "http"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """Where remotes can be: a folder and its URL."""
    root = tmp_path_factory.mktemp("place")
    if request.param == "directory":
        yield root, root.as_uri()
    else:
        with serving(root) as server:
            yield root, server.url


@pytest.fixture
def remote(place: tuple[Path, str], request: pytest.FixtureRequest) -> tuple[Path, str]:
    """The folder and the URL of a remote that does not exist yet."""
    name = re.sub(r"[^a-z0-9]", "-", request.node.name)[-80:].strip("-")
    return place[0] / name, f"{place[1]}/{name}"


@pytest.fixture
def repo(tmp_path: Path, remote: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository with two versions of a model, neither of them pushed."""
    folder = tmp_path / "repo"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with shardfs.init(folder) as found:
        found.add_remote("origin", remote[1])
        for state in (model(), tuned(model())):
            save(MODEL, state)
            add(found, MODEL)
        assert deltas(found, f"HEAD:{MODEL}")
        yield found


def files(repo: Repository, rev: str = "HEAD") -> dict[str, bytes]:
    """All versions of all files on the line of a revision."""
    return {
        f"{commit.hex()[:12]}:{b'/'.join(path).decode()}": content(repo, f"{commit.hex()}:{b'/'.join(path).decode()}")
        for commit, _ in repo.log(rev)
        for path, entry in repo.walk(commit.hex())
        if isinstance(entry, FileEntry)
    }


def problems_at(folder: Path) -> list[object]:
    """What `verify` finds at the remote itself."""
    with Repository(folder) as there:
        return [*there.verify().problems]


def without_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Begin with an empty cache: it holds plaintext, which would hide that packs cannot be decoded."""
    monkeypatch.setenv("SHARDFS_CACHE_DIR", str(tmp_path / f"cache-{len(os.listdir(tmp_path))}"))


def test_a_pack_is_refused_before_its_bases_are_there(repo: Repository, remote: tuple[Path, str]) -> None:
    entries = {pack: repo.store.index.entries(pack) for pack in repo.store.index.packs()}
    pack, needs = next((pack, e.bases[0]) for pack, found in entries.items() for e in found if e.bases)
    assert needs not in {entry.id for entry in entries[pack]}
    with pytest.raises(RemoteDeniedError, match=f"chunk {needs.hex()[:12]} is not here; push it first"):
        repo.remote("origin").put_pack(repo.store.layout.pack(pack), pack)
    assert not list((remote[0] / "packs").glob("*/*"))


@pytest.mark.parametrize("full", [False, True], ids=["lazy", "full"])
def test_a_clone_reads_differences(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.push()
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone", full=full) as clone:
        assert files(clone) == files(repo)
        assert clone.verify().problems == []
    assert problems_at(remote[0]) == []


def test_a_lazy_clone_reads_a_difference_before_what_it_differs_from(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.push()
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        assert content(clone, f"HEAD:{MODEL}") == Path(MODEL).read_bytes()


def test_a_push_sends_differences(repo: Repository, remote: tuple[Path, str]) -> None:
    first = repo.push().bytes
    save(MODEL, tuned(tuned(model()), 5))
    stored = add(repo, MODEL).bytes_stored
    assert stored <= repo.push().bytes < stored + 5000 < 0.3 * first
    assert problems_at(remote[0]) == []


def test_a_push_of_parts_of_packs_sends_differences(repo: Repository, remote: tuple[Path, str]) -> None:
    """Such payloads are packed anew. What they decode to may be in the cache, and is three times as large."""
    first = repo.push().bytes
    save(MODEL, tuned(tuned(model()), 5))
    save("other.safetensors", model(3))
    repo.add([MODEL, "other.safetensors"])
    repo.reset(["other.safetensors"])
    repo.commit("one of two")
    assert repo.push().bytes < 0.35 * first
    assert problems_at(remote[0]) == []


def test_what_a_branch_differs_from_is_pushed_with_it(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing but the bases of its chunks leads from the pushed version to those before."""
    tip = repo.commit_of("HEAD")[1]
    with repo.store.batch() as batch:
        orphan = CommitId(batch.put(Kind.COMMIT, replace(tip, parents=()).to_bytes()))
    repo.create_tag("alone", orphan.hex())
    repo.push(names=["alone"])
    assert problems_at(remote[0]) == []
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        assert content(clone, f"alone:{MODEL}") == Path(MODEL).read_bytes()
        assert clone.versions() == []


def test_a_clone_differs_from_what_it_has_not_read(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.push()
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        monkeypatch.chdir(clone.store_path.parent)
        saved = save(MODEL, tuned(tuned(model()), 5))
        add(clone, MODEL)
        assert len(deltas(clone, f"HEAD:{MODEL}")) > 3
        assert clone.verify().problems == [], "the bases are here now"
        assert clone.push().bytes < 1_000_000, "and were at the remote before"
    monkeypatch.chdir(repo.store_path.parent)
    repo.pull()
    assert content(repo, f"HEAD:{MODEL}") == saved == Path(MODEL).read_bytes()
    assert problems_at(remote[0]) == []


def test_a_clone_stores_two_files_as_differences_one_after_the_other(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second differs from the first, which is on its way and differs from what is at the remote."""
    repo.push()
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        monkeypatch.chdir(clone.store_path.parent)
        fine = tuned(tuned(model()), 5)
        saved = {MODEL: save(MODEL, fine), "other.safetensors": save("other.safetensors", tuned(fine, 6))}
        add(clone, *saved)
        assert all(len(deltas(clone, f"HEAD:{name}")) > 3 for name in saved)
        assert {name: content(clone, f"HEAD:{name}") for name in saved} == saved


def test_a_clone_reads_on_when_the_remote_packs_anew(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.push()
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        with shardfs.open(remote[0]) as there:
            assert there.optimize(grace_s=0).rewritten > 0
        assert files(clone) == files(repo)
        assert files(clone, "HEAD~1") == files(repo, "HEAD~1")
        assert clone.verify(remote=True).problems == []


def test_what_two_clones_add_to_one_version_is_readable_everywhere(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both store the same new content, each in its own way, and fetch that of the other."""
    repo.push()
    written = []
    for number, order in enumerate(((1, 2), (2, 1))):
        monkeypatch.setenv("SHARDFS_CACHE_DIR", str(tmp_path / f"own-{number}"))
        with shardfs.clone(remote[1], tmp_path / f"clone-{number}") as clone:
            monkeypatch.chdir(clone.store_path.parent)
            clone.switch(f"exp{number}", create=True)
            for seed in order:
                written.append(save(MODEL, tuned(tuned(model()), seed)))
                add(clone, MODEL)
    for number in range(2):
        with shardfs.open(tmp_path / f"clone-{number}") as clone:
            clone.push(names=[f"exp{number}"])
    assert problems_at(remote[0]) == []
    for number in range(2):
        without_cache(monkeypatch, tmp_path)
        with shardfs.open(tmp_path / f"clone-{number}") as clone:
            clone.fetch(full=True)
            clone.gc(grace_s=0)
            assert clone.verify().problems == []
            revs = ("origin/exp0~1", "origin/exp0", "origin/exp1~1", "origin/exp1")
            assert [content(clone, f"{rev}:{MODEL}") for rev in revs] == written


def test_chains_that_are_longer_at_the_remote_than_here_stay_readable_there(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`optimize` makes the newest version whole here, and it is the deepest there."""
    monkeypatch.setenv("SHARDFS_CHAIN_DEPTH", "12")
    state = {"layer.weight": model()["layer.0.weight"]}
    for round_ in range(2):
        with shardfs.open(".") as fresh:
            for seed in range(12):
                state = tuned(state, seed)
                saved = save(MODEL, state)
                add(fresh, MODEL)
            fresh.push()
            fresh.optimize(grace_s=0)
            assert deltas(fresh, f"HEAD:{MODEL}") == []
        assert problems_at(remote[0]) == [], round_
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        assert content(clone, f"HEAD:{MODEL}") == saved
        assert len(files(clone)) == 26


def test_a_full_fetch_needs_the_remote_no_more(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.push()
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        clone.fetch(full=True)
        clone.remove_remote("origin")
    without_cache(monkeypatch, tmp_path)
    with shardfs.open(tmp_path / "clone") as clone:
        assert files(clone, "main") == files(repo)


def test_a_second_remote_gets_what_only_the_first_has(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.push()
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone(remote[1], tmp_path / "clone") as clone:
        clone.add_remote("second", (tmp_path / "second").as_uri())
        clone.push("second", ["main"])
    assert problems_at(tmp_path / "second") == []
    with Repository(tmp_path / "second") as there:
        assert files(there, "main") == files(repo)


def test_a_static_copy_of_the_folder_serves_differences(
    repo: Repository, remote: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo.push()
    shutil.copytree(remote[0], tmp_path / "static")
    without_cache(monkeypatch, tmp_path)
    with shardfs.clone((tmp_path / "static").as_uri(), tmp_path / "clone") as clone:
        assert files(clone) == files(repo)


def test_gc_keeps_what_a_version_differs_from(repo: Repository, remote: tuple[Path, str]) -> None:
    saved = Path(MODEL).read_bytes()
    repo.push()
    for place in (repo, None):
        with place or Repository(remote[0]) as there:
            tip = there.commit_of("main")[1]
            with there.store.batch() as batch:
                orphan = CommitId(batch.put(Kind.COMMIT, replace(tip, parents=()).to_bytes()))
            there.create_tag("alone", orphan.hex())
            there.store.refs.move("refs/heads/main", there.tip("main"), orphan, author="a", message="cut")
            shutil.rmtree(there.store.layout.root / "logs")  # which keep the old tip for a month
            report = there.gc(grace_s=0)
            assert report.live > 0
            assert content(there, f"alone:{MODEL}") == saved
            assert there.verify().problems == []
