"""A hint that may be lost, damaged, old, newer or wrong: commits work, and only cost more bytes."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import shardfs
from shardfs.formats.ids import ManifestId
from shardfs.repository import Repository
from shardfs.store import database
from shardfs.store.tensor_index import FILE_NAME, SCHEMA_VERSION, Place, TensorIndex
from tests.stores import flip
from tests.weights import add, content, deltas, model, save, tuned

OLD, NEW = "old.safetensors", "new.safetensors"
PLACE = Place(ManifestId(b"m" * 32), 10, 20)


def sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as found:
        for statement in statements:
            found.execute(statement)


@pytest.fixture
def index(tmp_path: Path) -> TensorIndex:
    return TensorIndex(tmp_path)


def test_places_are_found_by_key_and_the_newest_counts(index: TensorIndex) -> None:
    index.remember({b"a": PLACE, b"b": PLACE})
    newer = Place(ManifestId(b"n" * 32), 0, 1 << 40)
    index.remember({b"b": newer})
    assert index.find([b"a", b"b", b"c", b"a"]) == {b"a": PLACE, b"b": newer}


def test_many_places_are_found_at_once(index: TensorIndex) -> None:
    places = {number.to_bytes(16, "big"): PLACE._replace(start=number) for number in range(2500)}
    index.remember(places)
    assert index.find(places) == places


def test_nothing_is_made_before_something_is_remembered(index: TensorIndex, tmp_path: Path) -> None:
    assert index.find([b"a"]) == {}
    index.remember({})
    assert [*tmp_path.iterdir()] == []


DAMAGE: dict[str, Callable[[Path], object]] = {
    "not a database": lambda path: path.write_bytes(b"no database at all" * 1000),
    "cut off": lambda path: os.truncate(path, 5000),
    "empty": lambda path: path.write_bytes(b""),
    "without its table": lambda path: sql(path, "DROP TABLE tensors"),
    "of a newer version": lambda path: sql(
        path, "DROP TABLE tensors", "CREATE TABLE tensors (other)", f"PRAGMA user_version = {SCHEMA_VERSION + 1}"
    ),
    "a flipped bit": lambda path: flip(path, 100, 3),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_file_that_cannot_be_used_is_made_anew(index: TensorIndex, tmp_path: Path, how: str) -> None:
    index.remember({b"%d" % number: PLACE for number in range(300)})
    DAMAGE[how](tmp_path / FILE_NAME)
    index.find([b"1"])
    index.remember({b"new": PLACE})
    assert index.find([b"new"]) == {b"new": PLACE}


@pytest.mark.parametrize(
    "row", ["x'00', 0, 1", "'text', 0, 1", "zeroblob(32), 'a', 1", "zeroblob(32), 0, 1.5", "zeroblob(32), x'00', 1"]
)
def test_a_row_of_impossible_values_is_no_place(index: TensorIndex, tmp_path: Path, row: str) -> None:
    index.remember({b"other": PLACE})
    sql(tmp_path / FILE_NAME, f"INSERT INTO tensors VALUES (x'61', {row})")
    assert index.find([b"a", b"other"]) == {b"other": PLACE}


# What becomes of commits


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    """A repository with a model."""
    folder = tmp_path / "repo"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with shardfs.init(folder) as found:
        save(OLD, model())
        add(found, OLD)
        yield found


def hint(repo: Repository) -> Path:
    return repo.store.layout.root / FILE_NAME


def test_tensors_of_other_files_are_found_by_their_names(repo: Repository) -> None:
    save(NEW, tuned(model()))
    add(repo, NEW)
    assert len(deltas(repo, f"HEAD:{NEW}")) > 2


@pytest.mark.parametrize("how", [*DAMAGE, "gone", "a folder"])
def test_a_commit_needs_no_hint(repo: Repository, how: str) -> None:
    path = hint(repo)
    if how in DAMAGE:
        DAMAGE[how](path)
    else:
        path.unlink()
    if how == "a folder":
        path.mkdir()
    saved = save(NEW, tuned(model()))
    add(repo, NEW)
    assert content(repo, f"HEAD:{NEW}") == saved
    again = save("third.safetensors", tuned(tuned(model()), 5))
    add(repo, "third.safetensors")
    assert content(repo, "HEAD:third.safetensors") == again
    assert bool(deltas(repo, "HEAD:third.safetensors")) == (how != "a folder")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
def test_a_commit_works_beside_a_hint_that_cannot_be_written(repo: Repository) -> None:
    hint(repo).chmod(0o400)
    saved = save(NEW, tuned(model()))
    add(repo, NEW)
    assert content(repo, f"HEAD:{NEW}") == saved


def test_a_hint_that_another_process_writes_is_left_to_it(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    with closing(sqlite3.connect(hint(repo), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        before = hint(repo).stat().st_ino
        saved = save(OLD, tuned(model()))
        add(repo, OLD)
        assert hint(repo).stat().st_ino == before
    assert content(repo, f"HEAD:{OLD}") == saved


def test_a_hint_that_names_collected_content_is_a_miss(repo: Repository) -> None:
    """A file that was added and never committed is gone after a collection."""
    save("gone.safetensors", model(5))
    repo.add(["gone.safetensors"])
    repo.reset(["gone.safetensors"])
    repo.gc(grace_s=0)
    saved = save(NEW, tuned(model(5)))
    add(repo, NEW)
    assert content(repo, f"HEAD:{NEW}") == saved
    assert repo.verify().problems == []


def test_a_hint_that_names_other_places_costs_bytes_only(repo: Repository) -> None:
    with closing(sqlite3.connect(hint(repo), isolation_level=None)) as found:
        rows = found.execute("SELECT key, manifest, start, end FROM tensors ORDER BY key").fetchall()
        for (key, *_), (_, *wrong) in zip(rows, rows[1:] + rows[:1], strict=True):
            found.execute("UPDATE tensors SET manifest = ?, start = ?, end = ? WHERE key = ?", (*wrong, key))
    saved = save(NEW, tuned(model()))
    add(repo, NEW)
    assert content(repo, f"HEAD:{NEW}") == saved
