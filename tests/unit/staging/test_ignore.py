from __future__ import annotations

import pytest

from shardfs.errors import MalformedError
from shardfs.staging.ignore import MAX_SIZE, IgnoreRules, parse


def rules(text: str, prefix: str = "", above: IgnoreRules | None = None) -> IgnoreRules:
    made = parse(text.encode(), prefix, above)
    assert made is not None
    return made


@pytest.mark.parametrize(
    ("pattern", "path", "is_dir", "ignored"),
    [
        ("*.log", "a.log", False, True),
        ("*.log", "deep/er/a.log", False, True),
        ("*.log", "a.logs", False, False),
        ("/top", "top", False, True),
        ("/top", "deep/top", False, False),
        ("dir/", "dir", True, True),
        ("dir/", "dir", False, False),
        ("a/**/z", "a/b/c/z", False, True),
        ("a/**/z", "a/z", False, True),
        (r"\# note", "# note", False, True),
        ("*\n!keep", "keep", False, False),
        ("*\n!keep", "other", False, True),
        ("runs/*\n!runs/best", "runs/best", True, False),
        ("*.log\r\n", "a.log", False, True),
        ("form\x0cfeed", "form\x0cfeed", False, True),
        ("caf\u00e9", "caf\u00e9", False, True),
    ],
)
def test_patterns_are_those_of_gitignore(pattern: str, path: str, is_dir: bool, ignored: bool) -> None:
    assert rules(pattern).ignores(path, is_dir=is_dir) is ignored


def test_deeper_files_have_the_last_word() -> None:
    top = rules("*.bin\nlogs/")
    inner = rules("!keep.bin\n/own", "in/", top)
    assert not inner.ignores("in/keep.bin", is_dir=False)
    assert inner.ignores("in/other.bin", is_dir=False)
    assert inner.ignores("in/own", is_dir=False)
    assert not inner.ignores("in/deep/own", is_dir=False)
    assert inner.ignores("in/logs", is_dir=True)


def test_names_that_are_no_utf8_match() -> None:
    made = parse(b"\xff*\n", "", None)
    assert made is not None
    assert made.ignores("\udcffname", is_dir=False)


def test_a_file_without_patterns_adds_nothing() -> None:
    above = rules("x")
    assert parse(b"\n# only a comment\n\n", "d/", above) is above
    assert parse(b"", "", None) is None


def test_a_byte_order_mark_is_no_part_of_the_first_pattern() -> None:
    made = parse(b"\xef\xbb\xbf*.log\r\n", "", None)
    assert made is not None
    assert made.ignores("a.log", is_dir=False)


def test_a_bad_line_is_named() -> None:
    with pytest.raises(MalformedError, match=r"d/.shardfsignore, line 2: '\[z-a\]x' is no pattern"):
        parse(b"ok\n[z-a]x\n", "d/", None)


def test_a_huge_file_is_refused() -> None:
    with pytest.raises(MalformedError, match="larger"):
        parse(b"x\n" * MAX_SIZE, "", None)
