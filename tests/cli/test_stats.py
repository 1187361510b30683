"""`shardfs stats`: its tables, its documents, and the picture that it draws, as transcripts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.cli.conftest import Shell

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def series(project: Shell, trained: Callable[[int], bytes]) -> Shell:
    """Three versions of a model and a text that stays."""
    for epoch in range(3):
        project.commit(f"epoch {epoch}", "--tag", f"v{epoch}", model__safetensors=trained(epoch), notes__txt="n")
    return project


def columns(text: str, first: str) -> dict[str, list[str]]:
    """Rows of the table whose first heading is `first`, by their first cell."""
    lines = iter(text.splitlines())
    for line in lines:
        if line.split()[:1] == [first]:
            break
    return {cells[0]: cells[1:] for line in _until_blank(lines) for cells in [re.split(r"\s{2,}", line)]}


def _until_blank(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line:
            return
        yield line


def test_both_tables_and_a_summary(series: Shell) -> None:
    told = series("stats").out
    assert [cells[-1] for cells in columns(told, "version").values()] == ["epoch 0", "epoch 1", "epoch 2"]
    codecs = columns(told, "codec")
    assert codecs["delta1"][-1] in {"1", "2"}
    assert codecs["planes"][-1] == "0"
    assert re.search(r"in all versions, .* deduplicated, .* stored, [\d.]+ times smaller\n3 commits, ", told)


def test_one_table_at_a_time(series: Shell) -> None:
    commits, codecs = series("stats", "--by", "commit").out, series("stats", "--by", "codec").out
    assert "epoch 2" in commits
    assert "delta1" not in commits
    assert "delta1" in codecs
    assert "epoch 2" not in codecs


def test_codecs_add_up_and_a_revision_leaves_out_what_came_later(series: Shell) -> None:
    everything, first = series("stats", "--json").json, series("stats", "v0", "--json").json
    assert sum(row["raw_bytes"] for row in everything["codecs"]) == everything["deduplicated_bytes"]
    assert sum(row["chunks"] for row in everything["codecs"]) == everything["chunks"]
    assert first["stored_bytes"] == first["versions"][0]["new_bytes"] == everything["versions"][0]["new_bytes"]
    assert {row["codec"] for row in first["codecs"]}.isdisjoint({"delta1", "delta2"})
    assert everything["versions"][2]["new_bytes"] < 0.7 * everything["versions"][0]["new_bytes"]


def test_tensors_of_a_revision(series: Shell) -> None:
    told = series("stats", "v1", "--by", "tensor").out
    heading, first = told.splitlines()[:2]
    assert " ".join(heading.split()) == "file tensor type shape logical stored ratio chunks depth codec"
    assert re.split(r"\s{2,}", first)[:5] == ["model.safetensors", "frozen", "float32", "256x128", "131.1 KB"]
    assert "notes.txt" not in told
    rows = {row["name"]: row for row in series("stats", "v1", "--by", "tensor", "--json").json["tensors"]}
    assert rows.keys() == {None, "embeddings", "frozen", "bias"}
    assert (rows["embeddings"]["codecs"], rows["embeddings"]["depth"]) == (["delta1"], 1)
    assert (rows["frozen"]["codecs"], rows["frozen"]["depth"]) == (["planes"], 0)
    assert rows["embeddings"]["ratio"] == round(262144 / rows["embeddings"]["stored_bytes"], 3)


def test_files_of_a_revision_and_head_without_one(series: Shell) -> None:
    rows = columns(series("stats", "--by", "file").out, "file")
    assert list(rows) == ["model.safetensors", "notes.txt"]
    document = series("stats", "--by", "file", "--json").json
    assert document["commit"] == series("log", "--json").json[0]["commit"]
    tensors = series("stats", "--by", "tensor", "--json").json["tensors"]
    whole = document["files"][0]["stored_bytes"]
    assert abs(sum(row["stored_bytes"] for row in tensors) - whole) <= len(tensors)


def test_names_cannot_steer_the_terminal(project: Shell) -> None:
    project.commit("line", **{"a\x1b[31m": "x"})
    assert "a\\x1b[31m" in project("stats", "--by", "file").out


def test_a_picture_of_the_versions(series: Shell) -> None:
    assert "wrote stored.svg" in series("stats", "--plot", "stored.svg").out
    root = ElementTree.parse(series.folder / "stored.svg").getroot()
    assert root.findtext(f"{SVG}title") == "project"
    assert len(root.findall(f"{SVG}circle")) == 6
    before = (series.folder / "stored.svg").read_bytes()
    series("stats", "v1", "--plot", "some.svg")
    assert ElementTree.parse(series.folder / "some.svg").getroot().findtext(f"{SVG}title") == "project up to v1"
    series("stats", "--json", "--plot", "stored.svg")
    assert (series.folder / "stored.svg").read_bytes() == before


def test_what_cannot_be_plotted_is_one_line(project: Shell, tmp_path: Path) -> None:
    assert "no versions yet" in project("stats", "--plot", "stored.svg", status=2).err
    assert not (project.folder / "stored.svg").exists()
    project.commit("one", a__txt="1")
    assert "leave out one" in project("stats", "--by", "file", "--plot", "x.svg", status=2).err
    target = tmp_path / "missing" / "stored.svg"
    assert project("stats", "--plot", target, status=1).err == f"shardfs: {target}: No such file or directory\n"


def test_an_unknown_revision(project: Shell) -> None:
    for by in ("commit", "codec", "file", "tensor"):
        assert "nope" in project("stats", "nope", "--by", by, status=1).err
