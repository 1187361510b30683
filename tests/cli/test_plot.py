"""The picture of `stats --plot`: a drawing of the numbers, whatever they and the texts are."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.formats.ids import CommitId
from shardfs.maintenance.stats import CommitStats
from shardfs_cli import plot

SVG = "{http://www.w3.org/2000/svg}"
MB = 1_000_000


def version(logical: int, new: int, subject: str = "epoch") -> CommitStats:
    return CommitStats(CommitId(bytes(32)), subject, 1, logical, new)


def drawn(versions: list[CommitStats], title: str = "title") -> ElementTree.Element:
    return ElementTree.fromstring(plot.stored_bytes(title, versions))


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(text.itertext()) for text in root.iter(f"{SVG}text")]


def points(root: ElementTree.Element, curve: str) -> list[tuple[float, float]]:
    [line] = [e for e in root.iter(f"{SVG}polyline") if curve in e.attrib["class"].split()]
    return [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in line.attrib["points"].split())]


def test_curves_are_running_sums_on_one_scale() -> None:
    root = drawn([version(100 * MB, 50 * MB), version(100 * MB, 10 * MB), version(100 * MB, 0)])
    grid = {t.text: float(t.attrib["y"]) - 4 for t in root.iter(f"{SVG}text") if t.attrib.get("text-anchor") == "end"}
    assert list(grid) == ["0 MB", "100 MB", "200 MB", "300 MB"]
    scale = (grid["0 MB"] - grid["300 MB"]) / 300
    copies, stored = points(root, "copies"), points(root, "stored")
    assert [round((grid["0 MB"] - y) / scale) for _, y in copies] == [100, 200, 300]
    assert [round((grid["0 MB"] - y) / scale) for _, y in stored] == [50, 60, 60]
    assert [x for x, _ in copies] == [x for x, _ in stored] == sorted({x for x, _ in stored})


def test_texts_say_what_is_drawn() -> None:
    told = texts(drawn([version(5 * MB, 4 * MB, "first"), version(5 * MB, MB, "second")], "my model"))
    assert told[:2] == ["my model", "2 versions, 5.0 MB stored instead of 10.0 MB: 2.0 times smaller"]
    assert {"version", "1", "first", "2", "second", "full copies", "10.0 MB", "stored", "5.0 MB"} <= set(told)


def test_points_tell_their_version() -> None:
    root = drawn([version(5 * MB, 4 * MB, "a <b> & c")])
    tips = [tip.text for circle in root.iter(f"{SVG}circle") for tip in circle]
    assert tips == ["1 a <b> & c: 4.0 MB stored, 5.0 MB as full copies"] * 2


def test_many_versions_have_numbers_that_do_not_touch() -> None:
    root = drawn([version(MB, MB)] * 500)
    numbers = sorted(float(t.attrib["x"]) for t in root.iter(f"{SVG}text") if (t.text or "").isdigit())
    assert 5 < len(numbers) < 30
    assert all(after - before > 20 for before, after in pairwise(numbers))
    assert "epoch" not in texts(root)


def test_light_and_dark() -> None:
    assert "prefers-color-scheme: dark" in plot.stored_bytes("title", [version(1, 1)])


@pytest.mark.parametrize("rows", [[(0, 0)], [(0, 300)], [(10**15, 10**15 + 1)], [(1, 2)] * 3])
def test_names_of_the_curves_do_not_touch(rows: list[tuple[int, int]]) -> None:
    root = drawn([version(*row) for row in rows])
    places = sorted(float(t.attrib["y"]) for t in root.iter(f"{SVG}text") if "name" in t.attrib["class"].split())
    assert places[1] - places[0] >= 34


@given(
    st.lists(st.tuples(st.integers(0, 2**60), st.integers(0, 2**60), st.text()), min_size=1, max_size=40),
    st.text(alphabet=st.characters()),
)
def test_any_numbers_and_texts_make_a_document_within_its_frame(rows: list[tuple[int, int, str]], title: str) -> None:
    versions = [version(logical, new, subject) for logical, new, subject in rows]
    picture = plot.stored_bytes(title, versions)
    assert picture == plot.stored_bytes(title, versions)
    root = ElementTree.fromstring(picture.encode())
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for curve in ("copies", "stored"):
        assert len(points(root, curve)) == len(rows)
        assert all(0 <= x <= width and 0 <= y <= height for x, y in points(root, curve))
