"""The series are what their titles say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.benchmarks import bench_bytes, bench_ingest, series


def test_every_file_of_a_series_has_a_maker() -> None:
    folders = {file.partition("/")[0] for each in (*series.BYTES, *series.QUICK) for file in each.files}
    folders |= {case.folder for case in (*bench_ingest.CASES, *bench_ingest.QUICK)}
    assert folders == set(series.MAKERS)


def test_a_part_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "mlm").mkdir()
    [file] = series.files_of(series.Series("", ("mlm/full_v1.pt",)), tmp_path)
    assert file == tmp_path / "mlm/full_v1.pt"
    assert os.listdir(tmp_path / "mlm") == []


def test_synthetic_versions_change_what_they_say(tmp_path: Path) -> None:
    series.make(tmp_path, ["syn-quick"])
    first, part, moved = (tmp_path / "syn-quick" / name for name in ("v1.pt", "v2.pt", "v3.pt"))
    size = first.stat().st_size
    assert 0.02 * size < bench_ingest.changed_bytes(first, part) < 0.051 * size
    assert bench_ingest.changed_bytes(first, moved) > 0.99 * size
    assert bench_ingest.changed_bytes(first, first) == 0
    assert bench_ingest.changed_bytes(None, first) == size


def test_a_version_with_other_bytes_ends_the_benchmark(tmp_path: Path) -> None:
    original, shown = tmp_path / "original", tmp_path / "shown"
    shown.mkdir()
    original.write_bytes(b"weights")
    (shown / "model.pt").write_bytes(b"weighty")
    with pytest.raises(SystemExit, match="other bytes"):
        bench_bytes.compare(shown, {"model.pt": original})
    with pytest.raises(SystemExit, match="instead of"):
        bench_bytes.compare(shown, {})
