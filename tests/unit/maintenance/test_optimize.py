from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import shardfs
from shardfs.errors import OutOfSpaceError
from shardfs.formats.ids import Kind
from shardfs.formats.tree import FileEntry
from shardfs.history.content import FileReader
from shardfs.maintenance import arranging
from shardfs.maintenance import optimize as optimize_module
from shardfs.maintenance.optimize import OptimizeReport
from shardfs.repository import Repository
from shardfs.store import packs as pack_files
from shardfs.store.packs import list_packs
from shardfs.store.plaintext import read_plaintext
from shardfs.store.store import Store
from tests import models
from tests.models import Weights, commit, contents, depths, series, trained, weights
from tests.stores import changed, flip, local_entries, noise, put_delta
from tests.unit.maintenance.conftest import make_old


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    folder = tmp_path / "project"
    folder.mkdir()
    with shardfs.init(folder) as found:
        yield found


def optimize(repo: Repository, **options: float) -> OptimizeReport:
    return repo.optimize(grace_s=options.pop("grace_s", 0.0), **options)  # type: ignore[arg-type]


def all_depths(repo: Repository) -> list[int]:
    return [max(depths(repo, id_.hex())) for id_, _ in repo.log()]


@pytest.fixture
def trained_repo(repo: Repository) -> Repository:
    """Six versions of one model, each stored as a difference to the one before."""
    for version in series(1, 6):
        commit(repo, {"model.safetensors": version})
    return repo


def test_the_newest_version_needs_no_other(trained_repo: Repository) -> None:
    before, size = contents(trained_repo), models.pack_bytes(trained_repo)
    assert all_depths(trained_repo) == [5, 4, 3, 2, 1, 0]
    report = optimize(trained_repo)
    assert (report.tip_depth_before, report.tip_depth_after) == (5, 0)
    assert (report.packs_before, report.packs_after) == (12, 1)
    assert (report.bytes_before, report.bytes_after) == (size, models.pack_bytes(trained_repo))
    assert all_depths(trained_repo) == [0, 1, 2, 3, 4, 5]
    assert report.bytes_after < 1.05 * size
    assert contents(trained_repo) == before
    assert trained_repo.verify().ok
    assert {finding.level for finding in trained_repo.diagnose()} <= {"ok", "note"}


def test_a_second_run_has_nothing_to_do(trained_repo: Repository) -> None:
    optimize(trained_repo)
    before = models.stored_files(trained_repo)
    report = optimize(trained_repo)
    assert (report.encoded, report.moved, report.rewritten) == (0, 0, 0)
    assert models.stored_files(trained_repo) == before


def test_dry_run_changes_nothing(trained_repo: Repository) -> None:
    before = models.stored_files(trained_repo)
    report = optimize(trained_repo, dry_run=True)
    assert report.encoded >= 18
    assert (report.rewritten, report.packs_after, report.tip_depth_after) == (12, 12, 0)
    assert models.stored_files(trained_repo) == before


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_no_chain_is_longer_than_allowed(repo: Repository, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in series(1, 8):
        commit(repo, {"model.safetensors": version})
    before = contents(repo)
    monkeypatch.setenv("SHARDFS_CHAIN_DEPTH", str(depth))
    with Repository(repo.store_path) as again:
        optimize(again)
        assert all_depths(again)[0] == 0
        assert max(all_depths(again)) == depth
        assert contents(again) == before


def test_a_new_version_changes_little(trained_repo: Repository) -> None:
    optimize(trained_repo)
    commit(trained_repo, {"model.safetensors": trained(series(1, 6)[-1], 7)})
    before = contents(trained_repo)
    assert all_depths(trained_repo)[0] == 1
    report = optimize(trained_repo)
    assert report.encoded <= 8  # the three tensors of the new version, those of the one before, and the headers
    assert all_depths(trained_repo) == [0, 1, 2, 3, 4, 5, 6]
    assert contents(trained_repo) == before


def test_all_branches_and_tags_are_shallow(trained_repo: Repository) -> None:
    repo = trained_repo
    repo.create_tag("early", "HEAD~4")
    repo.create_branch("side", "HEAD~3")
    repo.switch("side")
    side = series(1, 3)[-1]
    for step in range(3):
        side = trained(side, 50 + step)
        commit(repo, {"model.safetensors": side})
    repo.switch("main")
    before, size = contents(repo), models.pack_bytes(repo)
    report = optimize(repo)
    assert depths(repo, "main") == {0}
    assert max(depths(repo, "side")) in (1, 2)
    assert max(depths(repo, "early")) in (1, 2)
    assert (report.heads_depth_before, report.heads_depth_after) == (5, 2)
    assert contents(repo) == before
    assert report.bytes_after < 1.1 * size


def test_renamed_versions_are_one_line(repo: Repository) -> None:
    for number, version in enumerate(series(1, 4)):
        commit(repo, {f"model-{number}.safetensors": version})
        repo.remove([models.root(repo) / f"model-{number}.safetensors"])
    commit(repo, {"last.safetensors": series(1, 5)[-1]})
    before, size = contents(repo), models.pack_bytes(repo)
    optimize(repo)
    assert depths(repo, "HEAD") == {0}
    assert models.pack_bytes(repo) < 1.05 * size
    assert contents(repo) == before


def test_models_beside_each_other_stay_differences(repo: Repository) -> None:
    for number, version in enumerate(series(1, 3)):
        commit(repo, {f"epoch-{number}.safetensors": version, "other.safetensors": trained(weights(1), 90 + number)})
    before, size = contents(repo), models.pack_bytes(repo)
    optimize(repo)
    assert models.pack_bytes(repo) < 1.05 * size
    assert contents(repo) == before


def test_versions_of_some_tensors(repo: Repository) -> None:
    version = weights(1)
    for step in range(5):
        version = trained(version, step, (f"layer.{step % 2}",))
        commit(repo, {"model.safetensors": version})
    before, size = contents(repo), models.pack_bytes(repo)
    optimize(repo)
    assert depths(repo, "HEAD") == {0}
    assert models.pack_bytes(repo) < 1.05 * size
    assert contents(repo) == before


def test_zeros_join_nothing(repo: Repository) -> None:
    zeros: Weights = {f"moment.{n}": np.zeros((models.ROWS, models.COLUMNS), np.float32) for n in range(4)}
    state = zeros
    for step in range(4):
        commit(repo, {"state.safetensors": state})
        state = {name: values + weights(step, 4)[f"layer.{name[-1]}"] for name, values in state.items()}
    before = contents(repo)
    optimize(repo)
    assert depths(repo, "HEAD") == {0}
    assert contents(repo) == before


def test_rows_that_came_later(repo: Repository) -> None:
    version = weights(1)
    for step in range(4):
        commit(repo, {"model.safetensors": version})
        version = trained(version, step)
        version["layer.1"] = np.vstack([version["layer.1"], weights(step)["layer.0"][:16]])
    before = contents(repo)
    optimize(repo)
    assert depths(repo, "HEAD") == {0}
    assert contents(repo) == before


def test_small_packs_are_merged_and_text_is_compressed_harder(repo: Repository) -> None:
    for number in range(5):
        text = "".join(f"{(n * 7919 + number) % 1009} token {n}\n" for n in range(4000))
        commit(repo, {f"{number}.txt": text.encode()})
    before, size = contents(repo), models.pack_bytes(repo)
    report = optimize(repo)
    assert (report.packs_before, report.packs_after) == (10, 1)
    assert report.bytes_after < 0.9 * size
    assert contents(repo) == before
    assert optimize(repo).rewritten == 0


def test_an_empty_repository(repo: Repository) -> None:
    assert optimize(repo).problems == []


def test_what_only_a_reflog_or_staging_needs_is_kept(trained_repo: Repository) -> None:
    repo = trained_repo
    repo.create_branch("gone")
    repo.switch("gone")
    lost = commit(repo, {"model.safetensors": trained(series(1, 6)[-1], 99)})
    repo.switch("main")
    repo.delete_branch("gone", force=True)
    staged = trained(series(1, 6)[-1], 98)
    repo.add(models.write(repo, {"model.safetensors": staged}))
    optimize(repo)
    with Repository(repo.store_path) as fresh:
        fresh.create_tag("found", lost.hex())
        assert fresh.verify().ok
        (path,) = models.write(repo, {"expected.safetensors": staged})
        fresh.commit("staged", author="A <a@example.org>")
        with fresh.read("HEAD:model.safetensors") as file:
            assert file.read() == path.read_bytes()


def test_packs_with_young_garbage_stay(trained_repo: Repository) -> None:
    repo = trained_repo
    (path,) = models.write(repo, {"unused.safetensors": weights(77)})
    repo.add([path])
    repo.reset([path])
    before = contents(repo)
    report = optimize(repo, grace_s=3600.0)
    assert report.kept_young == 1
    assert contents(repo) == before
    assert depths(repo, "HEAD") == {0}
    repo.gc(grace_s=0)
    assert contents(repo) == before
    assert depths(repo, "HEAD") == {0}
    assert repo.verify().ok


def test_bases_of_what_a_push_has_brought_stay(trained_repo: Repository) -> None:
    store, base = trained_repo.store, noise(5, 4096)
    with store.batch() as batch:
        batch.put(Kind.CHUNK, base)
    make_old(store)
    with store.batch() as batch:
        new = put_delta(batch, changed(base, 1), base)
    optimize(trained_repo, grace_s=3600.0)
    assert read_plaintext(store, new, Kind.CHUNK) == changed(base, 1)
    optimize(trained_repo)
    assert store.find(new) == []


def _model(repo: Repository, rev: str) -> FileReader:
    entry = repo.entry(rev, "model.safetensors")
    assert isinstance(entry, FileEntry)
    return repo.open_entry(entry)


def _chunk(repo: Repository, rev: str) -> bytes:
    """A tensor's chunk of a version."""
    return max(_model(repo, rev).manifest.chunks, key=lambda chunk: chunk.size).id


def test_what_is_damaged_is_left_alone(trained_repo: Repository) -> None:
    repo = trained_repo
    damaged = _chunk(repo, "HEAD~2")
    pack, entry = next((p, e) for p, e in local_entries(repo.store) if e.id == damaged)
    path = repo.store.layout.pack(pack)
    path.chmod(0o644)
    flip(path, entry.offset + entry.stored_size // 2)
    report = optimize(repo)
    # The versions after it are differences to it, and those before it are not.
    assert len(report.problems) == 3
    assert all("is left alone" in problem for problem in report.problems)
    assert path.exists()
    with Repository(repo.store_path) as fresh:
        for rev in ("HEAD~3", "HEAD~4", "HEAD~5"):
            assert b"".join(_model(fresh, rev).blocks())
    flip(path, entry.offset + entry.stored_size // 2)
    assert optimize(repo).problems == []
    assert repo.verify().ok
    assert depths(repo, "HEAD") == {0}


def test_a_damaged_tip_is_passed_over(trained_repo: Repository) -> None:
    repo = trained_repo
    size = models.pack_bytes(repo)
    damaged = _chunk(repo, "HEAD")
    pack, entry = next((p, e) for p, e in local_entries(repo.store) if e.id == damaged)
    path = repo.store.layout.pack(pack)
    path.chmod(0o644)
    flip(path, entry.offset + entry.stored_size // 2)
    assert len(optimize(repo).problems) == 1
    assert max(depths(repo, "HEAD~1")) <= 1
    flip(path, entry.offset + entry.stored_size // 2)
    assert repo.verify().ok
    assert optimize(repo).problems == []
    assert depths(repo, "HEAD") == {0}
    assert models.pack_bytes(repo) < 1.1 * size


def test_a_lazy_clone_keeps_what_it_has(trained_repo: Repository, tmp_path: Path) -> None:
    repo = trained_repo
    before = contents(repo)
    repo.add_remote("origin", str(tmp_path / "server"))
    repo.push("origin")
    with shardfs.clone(str(tmp_path / "server"), tmp_path / "copy") as copy:
        commit(copy, {"model.safetensors": trained(series(1, 6)[-1], 7)})
        report = optimize(copy)
        assert report.elsewhere > 0
        assert report.problems == []
        assert before.items() <= contents(copy).items()
        copy.push("origin")
    repo.fetch("origin")
    repo.pull("origin")
    assert before.items() < contents(repo).items()


def test_remotes_have_what_an_optimized_repository_has(trained_repo: Repository, tmp_path: Path) -> None:
    repo = trained_repo
    repo.add_remote("origin", str(tmp_path / "server"))
    repo.push("origin")
    optimize(repo)
    before = contents(repo)
    report = repo.push("origin")
    assert (report.packs, report.bytes) == (0, 0)
    repo.add_remote("second", str(tmp_path / "other"))
    repo.push("second")
    for server in ("server", "other"):
        with shardfs.clone(str(tmp_path / server), tmp_path / f"copy of {server}") as copy:
            assert contents(copy) == before
            copy.fetch("origin", full=True)
            assert copy.verify().ok


def _stop_before_dropping(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store everything anew, and be stopped before an old pack goes."""

    def full(*_: object) -> None:
        msg = "no space left"
        raise OutOfSpaceError(msg)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "drop_packs", full)
        with pytest.raises(OutOfSpaceError):
            optimize(repo)


@pytest.mark.parametrize("after", ["nothing", "gc", "rebuild"])
def test_an_interrupted_run_goes_on(trained_repo: Repository, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = trained_repo
    before = contents(repo)
    _stop_before_dropping(repo, monkeypatch)
    assert len(list_packs(repo.store.layout)) == 13
    assert contents(repo) == before
    if after == "gc":
        assert repo.gc(grace_s=0).problems == []
    elif after == "rebuild":
        assert repo.rebuild_index() == []
    assert contents(repo) == before
    assert repo.verify().ok
    assert repo.store.index.damaged_packs() == set()
    report = optimize(repo)
    assert (report.packs_after, report.tip_depth_after) == (1, 0)
    assert report.encoded == 0 or after == "gc"  # which may take a copy from before
    assert contents(repo) == before
    assert repo.verify().ok


def test_readers_go_on_meanwhile(trained_repo: Repository) -> None:
    repo = trained_repo
    before = b"".join(_model(repo, "HEAD~5").blocks())
    with Repository(repo.store_path) as other:
        blocks = _model(other, "HEAD~5").blocks()
        parts = [next(blocks)]
        optimize(repo)
        parts += blocks
    assert b"".join(parts) == before


def test_gc_keeps_the_bases_of_an_optimized_branch(trained_repo: Repository) -> None:
    repo = trained_repo
    repo.create_branch("old", "HEAD~3")
    optimize(repo)
    repo.switch("old")
    repo.delete_branch("main", force=True)
    for path in (repo.store_path / "logs").rglob("*~"):
        path.unlink()
    before = contents(repo)
    repo.gc(grace_s=0)
    assert contents(repo) == before
    assert repo.verify().ok
    assert optimize(repo).tip_depth_after == 0
    assert contents(repo) == before
    repo.gc(grace_s=0)
    assert {e.id for _, e in local_entries(repo.store, [Kind.COMMIT])} == {id_ for id_, _ in repo.log()}
    assert os.listdir(repo.store_path / "tmp") == []


def test_long_chains_of_other_trees_stay_readable(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARDFS_CHAIN_DEPTH", "16")
    monkeypatch.setattr(arranging, "MAX_JOINED", 0)
    monkeypatch.setattr(optimize_module, "_PACK_SIZE", 1)
    monkeypatch.setattr(pack_files, "TARGET_SIZE", 1)  # a chunk each, so that packs go one by one
    with Repository(repo.store_path) as deep:
        other = first = weights(1, tensors=3)
        commit(deep, {"model.safetensors": first})
        for step in range(12):
            other = trained(other, 100 + step)
            commit(deep, {"tuned.safetensors": other})
        for step in range(12):
            first = trained(first, 200 + step)
            commit(deep, {"model.safetensors": first})
        before = contents(deep)
        assert optimize(deep).problems == []
        assert contents(deep) == before
        assert deep.verify().ok
