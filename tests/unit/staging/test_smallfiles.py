from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shardfs.formats.ids import chunk_id
from shardfs.staging.ingest import SMALL, Ingest, Ingested
from shardfs.staging.scan import Found, Scanner
from shardfs.staging.smallfiles import SmallFiles
from shardfs.staging.source import RACY_NS
from shardfs.store.store import Batch, Store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "project"
    made.mkdir()
    return made


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Batch]:
    store = Store.create(tmp_path / "store")
    with store.batch() as made:
        yield made
    store.close()


def found(root: Path) -> list[Found]:
    time.sleep(RACY_NS / 1e9)
    return [each for folder in Scanner(root).scan() for each in folder.found()]


def put(root: Path, batch: Batch, files: list[Found]) -> dict[bytes, Ingested | None]:
    done: list[int] = []
    small = SmallFiles(os.fsencode(root), batch, done.append)
    answers = small.put(files)
    assert sum(done) == sum(answer.size for answer in answers if answer is not None)
    return dict(zip((path for path, _ in files), answers, strict=True))


def test_they_are_stored_as_one_by_one(root: Path, batch: Batch) -> None:
    contents = {"a": b"alpha", "b": os.urandom(10_000), "c": b"alpha", "empty": b"", "large": bytes(SMALL)}
    for name, data in contents.items():
        (root / name).write_bytes(data)
    answers = put(root, batch, found(root))
    for name, data in contents.items():
        with (root / name).open("rb") as file, Ingest(batch) as ingest:
            assert answers[name.encode()] == ingest.file(file.fileno(), name.encode())
        assert not data or batch.has([chunk_id(data)])


def test_what_is_larger_or_of_a_known_format_is_left_to_others(root: Path, batch: Batch) -> None:
    (root / "larger").write_bytes(bytes(SMALL + 1))
    np.save(root / "array.npy", np.zeros(3))
    assert put(root, batch, found(root)) == {b"larger": None, b"array.npy": None}


def test_a_file_that_changed_just_now_is_left_to_others(root: Path, batch: Batch) -> None:
    (root / "a").write_bytes(b"a")
    now = time.time_ns()
    status = (root / "a").stat()
    if now - status.st_ctime_ns < RACY_NS / 2:  # else the machine was held up meanwhile
        assert put(root, batch, [(b"a", status)]) == {b"a": None}


def rewrite(path: Path) -> None:
    path.write_bytes(b"b")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize("change", [rewrite, Path.unlink, replace_by_pipe, replace_by_link])
def test_a_file_that_changed_since_it_was_found_is_left_to_others(
    root: Path, batch: Batch, change: Callable[[Path], None]
) -> None:
    (root / "a").write_bytes(b"a")
    files = found(root)
    change(root / "a")
    assert put(root, batch, files) == {b"a": None}
    assert not batch.has([chunk_id(b"a"), chunk_id(b"b")])
